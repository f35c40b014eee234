#!/bin/bash
# The menu on the terminal that telnetd gives each client; it says good-bye to one who says nothing for a minute.
printf 'Welcome to the gallery. There are: time, echo TEXT, quit.\n'
while printf 'choice> ' && read -r -t 60 choice rest; do
    case $choice in
        time) date --utc '+%Y-%m-%d %H:%M:%S UTC' ;;
        echo) printf '%s\n' "$rest" ;;
        quit) break ;;
        '') ;;
        *) printf 'no such choice: %s\n' "$choice" ;;
    esac
done
printf 'Good-bye.\n'
# When its program ends, telnetd hangs up, whatever is still on its way to the client.
sleep 0.5
