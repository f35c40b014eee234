#!/bin/bash
# The menu that telnetd runs for each client. It ends after a minute without input.
printf 'Welcome to the gallery. Choices: time, echo TEXT, quit.\n'
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
# telnetd closes when this ends, even if output is still on its way to the client.
sleep 0.5
