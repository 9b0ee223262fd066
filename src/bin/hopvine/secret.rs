use std::{fs, path::Path};

use hopvine::registry::ServerTls;

use crate::config::{ConfigError, Login, Tls};

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
        ConfigError::new("", format!("tls.certificate {certificate:?}, tls.key {key:?}: {error}"))
    })?;
    let Some(client_ca) = &files.client_ca else { return Ok(tls) };
    let roots = read("tls.client_ca", client_ca)?;
    tls.client_roots(&roots).map_err(|error| wrong("tls.client_ca", client_ca, &error.to_string()))
}

fn read(field: &str, file: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(file).map_err(|error| wrong(field, file, &error.to_string()))
}

fn wrong(field: &str, file: &Path, reason: &str) -> ConfigError {
    ConfigError::new("", format!("{field} {:?}: {reason}", file.display()))
}
