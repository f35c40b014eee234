# The server for codec.py: reads a length in four bytes and a text, answers with the text in upper case.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX 'WNOHANG';

# Collects children that have ended; with 'IGNORE' their CPU time would be accounted to nobody.
$SIG{CHLD} = sub { 1 while waitpid(-1, WNOHANG) > 0 };
$SIG{PIPE} = 'IGNORE';

my $port = shift // 9001;
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1024, ReuseAddr => 1)
    or die "port $port: $@\n";
print "listening on port ", $server->sockport, "\n";
STDOUT->flush;

sub receive {
    my ($client, $size) = @_;
    my $data = '';
    while (length $data < $size) {
        sysread($client, $data, $size - length $data, length $data) or exit 0;
    }
    return $data;
}

while (1) {
    my $client = $server->accept or next;
    my $pid = fork // die "fork: $!\n";
    if ($pid == 0) {
        close $server;
        while (1) {
            my $size = unpack 'N', receive($client, 4);
            exit 1 if $size > 65536;
            my $reply = pack 'N/a*', uc receive($client, $size);
            syswrite($client, $reply) == length $reply or exit 1;
        }
    }
    close $client;
}
