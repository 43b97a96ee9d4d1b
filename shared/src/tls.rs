//! TLS as a client: one provider of the cryptography, the public authorities and those of a bundle beside them.
//!
//! A server is always known by its chain and by its name. There is no way to encrypt without that.

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};

/// Makes ring the provider of the whole process, for libraries that ask for that one too: aws-lc-rs takes up to a second
/// of processor time at the start of a small function.
pub(crate) fn install_provider() {
    // Fails only where one is installed already, and then that one is used.
    let _ = ring::default_provider().install_default();
}

/// Whether any of these can be understood.
pub(crate) fn has_authority(bundle: &[CertificateDer<'static>]) -> bool {
    RootCertStore::empty().add_parsable_certificates(bundle.iter().cloned()).0 > 0
}

/// For servers whose certificates come from a public authority or from one of `bundle`.
pub(crate) fn client(bundle: &[CertificateDer<'static>]) -> ClientConfig {
    install_provider();
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // A bundle of many may hold one that cannot be understood. Leaving that out trusts nobody more.
    roots.add_parsable_certificates(bundle.iter().cloned());
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}
