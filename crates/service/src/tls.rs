//! What encrypts connections to the stores.

/// Makes ring what rustls encrypts with. Several libraries bring rustls, and none of them may choose for the others.
/// First thing in a main that may connect by TLS.
pub fn install() {
    // Already there is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
