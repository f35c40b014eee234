# The server for codec.py: greets, reads a line, answers with the line in upper case, closes.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX 'WNOHANG';

# Collects children that have ended; with 'IGNORE' their CPU time would be accounted to nobody.
$SIG{CHLD} = sub { 1 while waitpid(-1, WNOHANG) > 0 };
$SIG{PIPE} = 'IGNORE';

my $port = shift // 9002;
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1024, ReuseAddr => 1)
    or die "port $port: $@\n";
print "listening on port ", $server->sockport, "\n";
STDOUT->flush;

while (1) {
    my $client = $server->accept or next;
    my $pid = fork // die "fork: $!\n";
    if ($pid == 0) {
        close $server;
        syswrite($client, "220 ready\r\n") or exit 1;
        my $line = '';
        while ($line !~ /\n/) {
            sysread($client, $line, 1024, length $line) or exit 0;
        }
        syswrite($client, uc $line);
        exit 0;
    }
    close $client;
}
