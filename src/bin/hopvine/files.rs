use std::{fs, path::Path};

use hopvine::{
    connect,
    registry::{ServerTls, SnapshotPolicy},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{ConfigError, Login, PeerTls, Tls};

/// The longest password, in bytes: a file that is longer is another one.
const LONGEST: usize = 1024;

/// What stands in the file that a login names, but for the end of its line. No error says any of it.
pub(crate) fn password(section: &str, login: &Login) -> Result<String, ConfigError> {
    let field = format!("{section}.password_file");
    let wrong = |reason: &str| wrong(&field, &login.password_file, reason);
    let text = String::from_utf8(read(&field, &login.password_file)?).map_err(|_| wrong("is not UTF-8"))?;
    let password = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if password.is_empty() {
        return Err(wrong("holds no password"));
    }
    if password.len() > LONGEST {
        return Err(wrong("holds more than a password: more than 1024 bytes"));
    }
    if password.contains(char::is_control) {
        return Err(wrong("holds more than one line, or a control character"));
    }
    Ok(password.to_owned())
}

pub(crate) fn tls(files: &Tls) -> Result<ServerTls, ConfigError> {
    let (certificate, key) = (read("tls.certificate", &files.certificate)?, read("tls.key", &files.key)?);
    let tls = ServerTls::new(&certificate, &key).map_err(|error| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        ConfigError::new("", format!("tls.certificate \"{certificate}\", tls.key \"{key}\": {error}"))
    })?;
    let Some(client_ca) = &files.client_ca else { return Ok(tls) };
    let roots = read("tls.client_ca", client_ca)?;
    tls.client_roots(&roots).map_err(|error| wrong("tls.client_ca", client_ca, &error.to_string()))
}

/// Whom peers must be when they show a certificate, and which one they are shown.
pub(crate) fn peer_tls(files: &PeerTls) -> Result<connect::http::Tls, ConfigError> {
    let tls = match &files.ca {
        None => connect::http::Tls::default(),
        Some(ca) => connect::http::Tls::pem_roots(&read("peer_tls.ca", ca)?)
            .map_err(|error| wrong("peer_tls.ca", ca, &error.to_string()))?,
    };
    let (Some(certificate), Some(key)) = (&files.certificate, &files.key) else { return Ok(tls) };
    let (shown, its_key) = (read("peer_tls.certificate", certificate)?, read("peer_tls.key", key)?);
    tls.client_certificate(&shown, &its_key).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        ConfigError::new("", format!("peer_tls.certificate \"{certificate}\", peer_tls.key \"{key}\": {error}"))
    })
}

/// A peer's URL with the user and the password that it is asked with.
pub(crate) fn with_password(url: &str, login: Option<(&str, &str)>) -> String {
    match (url.split_once("://"), login) {
        (Some((scheme, rest)), Some((user, password))) => {
            let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
            format!("{scheme}://{}:{}@{rest}", encoded(user), encoded(password))
        }
        _ => url.to_owned(),
    }
}

/// A file that a registry can be kept in.
pub(crate) fn snapshot(file: &Path) -> Result<(), ConfigError> {
    SnapshotPolicy::check_path(file).map_err(|error| wrong("snapshot", file, &error.to_string()))
}

fn read(field: &str, file: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(file).map_err(|error| wrong(field, file, &error.to_string()))
}

fn wrong(field: &str, file: &Path, reason: &str) -> ConfigError {
    ConfigError::new("", format!("{field} \"{}\": {reason}", file.display()))
}
