//! Credentials for registries, in the file format that `docker login` and `podman login` write (`config.json`, `auth.json`).
//!
//! Helpers that keep them elsewhere (`credsStore`, `credHelpers`) are not asked: what they would give has to be in the file.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a file of credentials says.
#[derive(Default, Deserialize)]
pub(crate) struct Credentials {
    /// By registry.
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// The credentials for one registry.
#[derive(Default, Deserialize)]
struct Entry {
    /// `user:password` in base64.
    #[serde(default)]
    auth: String,
    /// Or the user,
    #[serde(default)]
    username: String,
    /// and the password.
    #[serde(default)]
    password: String,
}

impl Credentials {
    /// What `text` says, or what is wrong with it; never any of its contents.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parsed: Result<Self, _> = serde_json::from_str(text);
        // The error's own text may quote what it stumbled over.
        let credentials = parsed.map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("line {line}, column {column} is not what `docker login` writes: {{\"auths\": {{\"HOST\": {{\"auth\": \"...\"}}}}}}")
        })?;
        for (registry, entry) in &credentials.auths {
            entry.auth().map_err(|why| format!("{registry}: {why}"))?;
        }
        Ok(credentials)
    }

    /// What to show `registry` (`host` or `host:port`).
    pub(crate) fn of(&self, registry: &str) -> RegistryAuth {
        let mut entries = self.auths.iter();
        let found = entries.find(|(name, _)| host(name) == host(registry));
        let auth = found.map(|(_, entry)| entry.auth());
        // What cannot be read was refused when the file was.
        auth.and_then(Result::ok).unwrap_or(RegistryAuth::Anonymous)
    }
}

impl Entry {
    fn auth(&self) -> Result<RegistryAuth, &'static str> {
        if !self.username.is_empty() {
            let (name, password) = (self.username.clone(), self.password.clone());
            return Ok(RegistryAuth::Basic(name, password));
        }
        if self.auth.is_empty() {
            return Err(
                "it has neither `auth` nor `username`: helpers that keep credentials elsewhere are not asked",
            );
        }
        let bytes = BASE64_STANDARD.decode(self.auth.trim_end_matches('\0'));
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_once(':')) {
            Some((name, password)) => Ok(RegistryAuth::Basic(name.to_owned(), password.to_owned())),
            None => Err("`auth` is not user:password in base64"),
        }
    }
}

/// The host in the name of a registry, which may be an address; Docker's own has several.
fn host(name: &str) -> &str {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    match name.split('/').next().unwrap_or_default() {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_gets_its_own_credentials_and_no_other() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"},
            "ghcr.io": {"username": "you", "password": "a:b"}}, "credsStore": "x"}"#;
        let credentials = Credentials::parse(text).unwrap();
        let basic = |name: &str, password: &str| RegistryAuth::Basic(name.into(), password.into());
        assert_eq!(credentials.of("index.docker.io"), basic("me", "secret"));
        assert_eq!(credentials.of("docker.io"), basic("me", "secret"));
        assert_eq!(credentials.of("ghcr.io"), basic("you", "a:b"));
        assert_eq!(credentials.of("ghcr.io:444"), RegistryAuth::Anonymous);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_contents() {
        for (text, says) in [
            ("secret", "line 1"),
            (r#"{"auths": {"a.b": {}}}"#, "a.b: it has neither"),
            (r#"{"auths": {"a.b": {"auth": "secret"}}}"#, "base64"),
            (r#"{"auths": "secret"}"#, "line 1"),
        ] {
            let error = Credentials::parse(text).err().unwrap();
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
    }
}
