//! `postgres:///?service=orders`: the place and the login by a name, from the file that libpq reads.
use reqwest::Url;
use std::{borrow::Cow, collections::HashMap, path::PathBuf};
use windlass_engine::step::{Failure, Target};

/// Where libpq looks, in its order.
fn files() -> Vec<PathBuf> {
    if let Some(file) = std::env::var_os("PGSERVICEFILE") {
        return vec![PathBuf::from(file)];
    }
    let own = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pg_service.conf"));
    let folder = std::env::var_os("PGSYSCONFDIR")
        .map_or_else(|| PathBuf::from("/etc/postgresql-common"), PathBuf::from);
    own.into_iter()
        .chain([folder.join("pg_service.conf")])
        .collect()
}

/// What a service's part of a file says: `[orders]`, then `key=value` a line.
fn read(text: &str, service: &str) -> Option<HashMap<String, String>> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .skip_while(|line| *line != format!("[{service}]"));
    lines.next()?;
    Some(
        lines
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect(),
    )
}

/// The URL with what its service says in the parts that it leaves open; as it is where it names none.
pub(super) fn resolved<'a>(target: &Target, url: &'a str) -> Result<Cow<'a, str>, Failure> {
    let Ok(mut parsed) = Url::parse(url) else {
        return Ok(Cow::Borrowed(url));
    };
    let Some((_, service)) = parsed.query_pairs().find(|(key, _)| key == "service") else {
        return Ok(Cow::Borrowed(url));
    };
    let service = service.into_owned();
    let files = files();
    let found = files
        .iter()
        .find_map(|file| read(&std::fs::read_to_string(file).ok()?, &service));
    let Some(found) = found else {
        let places: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        return Err(Failure::new(
            "target.service",
            format!(
                "target {}: there is no service {service:?} in {}",
                target.name,
                places.join(", ")
            ),
        )
        .help("add it there, or name another file by PGSERVICEFILE"));
    };
    let wrong = |key: &str| {
        Failure::new(
            "target.service",
            format!(
                "target {}: {key} of service {service:?} cannot be used",
                target.name
            ),
        )
    };
    // Nothing of a value is in a message: one of them may be the password.
    let rest: Vec<(String, String)> = parsed
        .query_pairs()
        .filter(|(key, _)| key != "service")
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    parsed.query_pairs_mut().clear().extend_pairs(rest);
    let given = |key: &str| found.get(key).filter(|value| !value.is_empty());
    if let Some(host) = given("host").filter(|_| parsed.host_str().is_none_or(str::is_empty)) {
        if host.starts_with('/') {
            parsed
                .set_host(Some("localhost"))
                .map_err(|_| wrong("host"))?;
            parsed.query_pairs_mut().append_pair("host", host);
        } else {
            parsed.set_host(Some(host)).map_err(|_| wrong("host"))?;
        }
    }
    if let Some(port) = given("port").filter(|_| parsed.port().is_none()) {
        let port = port.parse().map_err(|_| wrong("port"))?;
        parsed.set_port(Some(port)).map_err(|()| wrong("port"))?;
    }
    if let Some(user) = given("user").filter(|_| parsed.username().is_empty()) {
        parsed.set_username(user).map_err(|()| wrong("user"))?;
    }
    if let Some(password) = given("password").filter(|_| parsed.password().is_none()) {
        parsed
            .set_password(Some(password))
            .map_err(|()| wrong("password"))?;
    }
    if let Some(database) = given("dbname").filter(|_| parsed.path().len() <= 1) {
        parsed.set_path(database);
    }
    Ok(Cow::Owned(parsed.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_read_from_its_own_part() {
        let text = "# all of them\n[other]\nhost=elsewhere\n\n[orders]\nhost = db.example\nport=6432\nuser=app\n[last]\nport=1\n";
        let orders = read(text, "orders").unwrap();
        assert_eq!(orders.len(), 3);
        assert_eq!(orders.get("host").map(String::as_str), Some("db.example"));
        assert_eq!(read(text, "nobody"), None);
    }
}
