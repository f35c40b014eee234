"""Create the lab's CA and sign its certificates; `lab.servers.certificates` stores them."""

import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def create_ca(expires: float) -> tuple[bytes, bytes]:
    """Create a CA that expires at a Unix time; return its certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _pem(_sign("socketlab CA", key, None, key, _moment(expires))), _pem_of_key(key)


def issue(ca: bytes, ca_key: bytes, names: Sequence[str], expires: float) -> tuple[bytes, bytes]:
    """Sign a certificate for all servers and one for all clients.

    Args:
        ca, ca_key: as `create_ca` returns them.
        names: the servers' host names and IP addresses.
        expires: a Unix time.

    Returns:
        As PEM, key and certificate each: of the servers, of the clients.

    Raises:
        ValueError: `ca` or `ca_key` is not PEM.
    """
    signer = serialization.load_pem_private_key(ca_key, None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the CA's key is not an elliptic-curve key")
    authority = x509.load_pem_x509_certificate(ca)
    pairs = []
    for title, alternatives in (("socketlab server", names), ("socketlab client", ())):
        key = ec.generate_private_key(ec.SECP256R1())
        pairs.append(_pem_of_key(key) + _pem(_sign(title, signer, authority, key, _moment(expires), alternatives)))
    return pairs[0], pairs[1]


def _moment(expires: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(expires, datetime.UTC)


def _sign(
    title: str,
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate | None,
    key: ec.EllipticCurvePrivateKey,
    end: datetime.datetime,
    names: Sequence[str] = (),
) -> x509.Certificate:
    """Sign a certificate for `key`: by the CA, or without one, by itself. The extensions follow RFC 5280."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    now = datetime.datetime.now(datetime.UTC)
    is_ca = ca is None
    usage = x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    if not is_ca:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if names:
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
