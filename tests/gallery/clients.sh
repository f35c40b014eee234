# Standard clients against the gallery: prints a line for each that succeeds, and all output of the first that fails.
# Run by tests/lab/servers/docker/test_gallery.py in the container `clients`.
set -u
cd /tmp
export CURL_CA_BUNDLE=/run/secrets/tls_ca HOME=/tmp

# try NAME PATTERN COMMAND...: the command succeeds, and says something that the pattern matches.
try() {
    name=$1 pattern=$2
    shift 2
    if said=$("$@" 2>&1) && printf '%s\n' "$said" | grep -q -e "$pattern"; then
        echo "ok $name"
    else
        printf 'FAILED %s: %s\n%s\n' "$name" "$*" "$said"
        exit 1
    fi
}

curl() { command curl --silent --show-error --fail --max-time 20 "$@"; }
ann='--user ann:anns-secret'
bob='--user bob:bobs-secret'
id=$(date +%s%N)
echo "uploaded $id" > file
printf 'From: ann@gallery.test\nTo: bob@gallery.test\nSubject: %s\n\nHello.\n' "$id" > message

try 'curl, FTP' welcome.txt curl $ann ftp://gallery_ftp/
try 'curl, FTP, upload' '^$' curl $ann --upload-file file ftp://gallery_ftp/pub/curl
try 'curl, FTP, active' "uploaded $id" curl $ann --ftp-port - ftp://gallery_ftp/pub/curl
try 'curl, FTPS' "uploaded $id" curl $ann --ssl-reqd ftp://gallery_ftp/pub/curl
try 'lftp, FTPS' "uploaded $id" lftp -e "set ssl:ca-file $CURL_CA_BUNDLE; set ftp:ssl-force yes; put file -o pub/lftp; cat pub/lftp; exit" \
    -u ann,anns-secret gallery_ftp

try 'curl, HTTP, what came by FTP' "uploaded $id" curl http://gallery_web/pub/lftp
try 'curl, HTTPS' '^line 10$' curl https://gallery_web/lines.txt
try 'curl, Basic' Basic curl $ann http://gallery_web/basic/secret.txt
try 'curl, Digest' Digest curl $ann --digest http://gallery_web/digest/secret.txt
try 'curl, redirect' '^line 10$' curl --location http://gallery_web/redirect
try 'curl, range' '^line 1$' curl --range 0-6 http://gallery_web/lines.txt
try 'curl, form' '^file: file, .* bytes' curl --form file=@file --form a=1 http://gallery_web/cgi-bin/form.py
try 'curl, cookies' 'visits 1' curl --cookie-jar jar http://gallery_web/cgi-bin/cookies.py
try 'curl, cookies again' 'visits 2' curl --cookie jar http://gallery_web/cgi-bin/cookies.py

try 'swaks, SMTP' '250 2.0.0' swaks --server gallery_smtp --from ann@gallery.test --to bob@gallery.test --data @message
try 'swaks, STARTTLS' 'TLS started' swaks --server gallery_smtp --tls --tls-verify --tls-ca-path $CURL_CA_BUNDLE \
    --from ann@gallery.test --to bob@gallery.test
try 'swaks, submission' '235 2.0.0' swaks --server gallery_smtp:587 --tls --auth-user ann --auth-password anns-secret \
    --from ann@gallery.test --to bob@gallery.test
try 'swaks, smtpd' '250 2.0.0 accepted' swaks --server gallery_smtpd:2525 --from ann@gallery.test --to bob@gallery.test
try 'curl, SMTPS' '^$' curl --mail-from ann@gallery.test --mail-rcpt ann@gallery.test --upload-file message smtps://gallery_smtp
# What swaks has sent, as soon as it is delivered: its number among the others in bob's mailbox.
number=
for attempt in $(seq 100); do
    number=$(curl $bob "imap://gallery_mail/INBOX?SUBJECT%20$id" | tr -dc 0-9)
    [ -z "$number" ] || break
    sleep 0.2
done
try 'curl, IMAP' "Subject: $id" curl $bob "imap://gallery_mail/INBOX;MAILINDEX=$number"
try 'curl, IMAPS' '\* SEARCH 1' curl $bob imaps://gallery_mail/INBOX --request 'SEARCH ALL'
try 'curl, POP3' "Subject: $id" curl $bob pop3://gallery_mail/$number
try 'curl, POP3S' '^1 ' curl $bob pop3s://gallery_mail/

try "INN's getlist, NNTP" '^gallery.test ' getlist -A -h gallery_news active
try 'curl, gopher' about.txt curl gopher://gallery_gopher/
try 'curl, gopher, search' /docs/finger.txt curl 'gopher://gallery_gopher/7/cgi-bin/search.sh%09finger'
try 'telnet' Good-bye. sh -c 'mkfifo keys; telnet gallery_telnet < keys & exec 4> keys; echo quit >&4; wait'
try 'curl, XML-RPC' '<int>5</int>' curl --header 'Content-Type: text/xml' http://gallery_xmlrpc:8000/RPC2 --data \
    '<methodCall><methodName>add</methodName><params><param><value><int>2</int></value></param><param><value><int>3</int></value></param></params></methodCall>'
try 'curl, chat' Good-bye. sh -c 'echo /quit | curl telnet://gallery_asynchat:7000 --silent --max-time 20'
