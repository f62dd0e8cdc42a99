//! TLS 1.3 as libp2p uses it: one certificate on either side, no server name, no resumption, ALPN `libp2p`.
//!
//! A certificate is accepted when it is alone, not too long, and its key has signed the handshake. Whom it stands for
//! is not asked here: the house checks that before it uses the connection.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, PeerIncompatible, ServerConfig,
    SignatureScheme,
};

use crate::error::{Error, Result};
use crate::session::Tls;

const ALPN: &[u8] = b"libp2p";
/// Longer certificates are refused unread; the house has the same bound.
const MOST: usize = 8192;

/// The name that a dial gives to TLS, which is not sent.
pub const NO_NAME: &str = "libp2p.invalid";

/// Both sides of TLS for one certificate and its key (PKCS #8), in DER.
pub fn configs(certificate: &[u8], key: &[u8]) -> Result<Tls> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from(certificate.to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
    let verifier = Arc::new(ByStructure(provider.signature_verification_algorithms));
    let refused = |why: rustls::Error| Error::unusable("certificate or key", why);
    let mut client = versions(ClientConfig::builder_with_provider(Arc::clone(&provider)))?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_auth_cert(chain.clone(), key.clone_key())
        .map_err(refused)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.enable_sni = false;
    // A resumed connection shows no certificate, and so no identity.
    client.resumption = Resumption::disabled();
    let mut server = versions(ServerConfig::builder_with_provider(provider))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(refused)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    // First datagrams are encrypted with this one, whatever is agreed on later (RFC 9001 section 5.2).
    let usual = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    let initial = usual.ok_or_else(|| Error::unusable("cipher suites", "none for QUIC"))?;
    let server = Arc::new(server);
    let before = Arc::clone(&server).try_into().map_err(|why| Error::unusable("cipher suites", why))?;
    Ok(Tls { client: Arc::new(client), server, before, initial })
}

fn versions<S: rustls::ConfigSide>(
    builder: rustls::ConfigBuilder<S, rustls::WantsVersions>,
) -> Result<rustls::ConfigBuilder<S, rustls::WantsVerifier>> {
    builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|why| Error::unusable("TLS 1.3", why))
}

/// Accepts any one certificate whose key has signed the handshake.
#[derive(Debug)]
struct ByStructure(WebPkiSupportedAlgorithms);

type Signed = std::result::Result<HandshakeSignatureValid, rustls::Error>;

impl ByStructure {
    fn alone(
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> std::result::Result<(), rustls::Error> {
        match others.is_empty() && certificate.len() <= MOST && public_key(certificate).is_some() {
            true => Ok(()),
            false => Err(CertificateError::BadEncoding.into()),
        }
    }

    // Not rustls's reader of certificates: it refuses libp2p's extension where that is marked critical.
    fn signed(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &DigitallySignedStruct) -> Signed {
        let key = public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key), signature, &self.0)
    }
}

fn no_tls12() -> Signed {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

impl ServerCertVerifier for ByStructure {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Self::alone(certificate, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Signed {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        from: &CertificateDer<'_>,
        with: &DigitallySignedStruct,
    ) -> Signed {
        self.signed(message, from, with)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl ClientCertVerifier for ByStructure {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        Self::alone(certificate, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Signed {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        from: &CertificateDer<'_>,
        with: &DigitallySignedStruct,
    ) -> Signed {
        self.signed(message, from, with)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The SubjectPublicKeyInfo of a certificate, by its place (RFC 5280 section 4.1). None for what is no certificate.
pub fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (outer, behind) = Element::read(certificate)?;
    let (signed, _) = Element::read(outer.of(0x30)?)?;
    let mut rest = signed.of(0x30)?;
    // Version 3 stands first; there is no extension without it.
    for tag in [0xa0, 0x02, 0x30, 0x30, 0x30, 0x30] {
        let (element, more) = Element::read(rest)?;
        element.of(tag)?;
        rest = more;
    }
    let (key, _) = Element::read(rest)?;
    key.of(0x30)?;
    behind.is_empty().then_some(key.whole)
}

/// One element of DER: its tag, and its bytes with and without their head.
struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    body: &'a [u8],
}

impl<'a> Element<'a> {
    /// The element at the front, and what is behind it. None unless its length is whole and in its shortest form.
    fn read(data: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let [tag, short, long @ ..] = data else { return None };
        let digits = match short {
            0..=0x7f => &[],
            0x81..=0x83 => long.get(..usize::from(short & 0x7f))?,
            _ => return None,
        };
        let length = match digits {
            [] => usize::from(*short),
            _ => digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
        };
        if digits.first() == Some(&0) || (!digits.is_empty() && length < 0x80) {
            return None;
        }
        let start = 2 + digits.len();
        let (whole, rest) = data.split_at_checked(start + length)?;
        Some((Self { tag: *tag, whole, body: whole.get(start..)? }, rest))
    }

    fn of(&self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.body)
    }
}
