//! What the creation of a source or an invocation does about its webhook.

use super::{App, Auth};
use crate::{
    domain::webhook::{self, Webhook},
    error::{Error, FieldViolation, Result},
    secret::Secret,
};

impl App {
    /// Checks what the operator allows and seals the signing secret. Where the caller gave none, one is made
    /// and returned, to be shown in the answer of the creation and never again.
    pub(super) fn prepare_webhook(
        &self,
        auth: &Auth,
        requested: Option<&mut Webhook>,
    ) -> Result<Option<Secret>> {
        let Some(requested) = requested else {
            return Ok(None);
        };
        self.require_webhook_allowed(requested)?;
        let given = requested.signing_secret.take();
        let made = given.is_none().then(webhook::generate_signing_secret);
        if let Some(secret) = given.as_ref().or(made.as_ref()) {
            let context = webhook::sealing_context(auth.tenant());
            let sealed = self.0.sealing_key.seal(&context, secret);
            requested.sealed_secret = Some(sealed.map_err(Error::internal)?);
        }
        Ok(made)
    }

    /// # Errors
    /// INVALID_FIELD.
    pub(super) fn require_webhook_allowed(&self, requested: &Webhook) -> Result<()> {
        if requested.url.is_plain() && !self.0.allow_http_webhooks {
            let problem = "must be an https:// URL; the operator can allow http:// with webhooks.allow_http";
            return Err(FieldViolation::new("webhook.url", problem).into());
        }
        Ok(())
    }
}

/// Shows the secret that the server made.
pub(super) fn show_secret(webhook: &mut Option<Webhook>, made: Option<Secret>) {
    if let Some(webhook) = webhook {
        webhook.signing_secret = made;
    }
}
