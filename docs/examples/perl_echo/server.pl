# echo (RFC 862) over TCP in Perl: a process for each client. With Debian's perl-base and nothing else.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX 'WNOHANG';

# Collects children that have ended; with 'IGNORE' their CPU time would be accounted to nobody.
$SIG{CHLD} = sub { 1 while waitpid(-1, WNOHANG) > 0 };
$SIG{PIPE} = 'IGNORE';    # a client that is gone is an error of syswrite

my $port = shift // 7;
my $server = IO::Socket::INET->new(LocalPort => $port, Listen => 1024, ReuseAddr => 1) or die "port $port: $@\n";
print "listening on port ", $server->sockport, "\n";
STDOUT->flush;

# SIGTERM: nobody new. Clients that are being served are answered by their own processes.
$SIG{TERM} = sub { exit 0 };

while (1) {
    my $client = $server->accept or next;    # interrupted, or the client has gone again
    my $pid = fork;
    if (!defined $pid) {
        warn "fork: $!\n";
        sleep 1;
    }
    elsif ($pid == 0) {
        close $server;
        while (sysread($client, my $data, 65536)) {
            for (my $sent = 0; $sent < length $data;) {
                $sent += syswrite($client, $data, length($data) - $sent, $sent) // exit 1;
            }
        }
        exit 0;
    }
    close $client;
}
