//! A target as the programs of PostgreSQL read it: `psql`, `pg_dump`, `pg_restore`.
use super::{connect, service};
use reqwest::Url;
use sqlx::postgres::PgSslMode;
use windlass_engine::step::{Failure, Revealed, Target};

/// The variables that libpq reads, with the place, the login and the TLS of a target.
pub(super) fn environment(
    target: &Target,
    url: &str,
) -> Result<Vec<(&'static str, Revealed)>, Failure> {
    let options = connect::options(target, url, "")?;
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let mode = match options.get_ssl_mode() {
        PgSslMode::VerifyFull => "verify-full",
        PgSslMode::Require => "require",
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer | PgSslMode::VerifyCa => {
            "disable"
        }
    };
    let mut variables = vec![
        ("PGHOST", host),
        ("PGPORT", options.get_port().to_string()),
        ("PGUSER", options.get_username().to_owned()),
        ("PGSSLMODE", mode.to_owned()),
    ];
    variables.extend(
        options
            .get_database()
            .map(|name| ("PGDATABASE", name.to_owned())),
    );
    let file = |key: &str| target.options.get(key).map(ToString::to_string);
    let root = match (mode, file("ca_file")) {
        (_, Some(file)) => Some(file),
        ("verify-full", None) => Some("system".to_owned()),
        (_, None) => None,
    };
    variables.extend(root.map(|file| ("PGSSLROOTCERT", file)));
    variables.extend(file("client_cert").map(|file| ("PGSSLCERT", file)));
    variables.extend(file("client_key").map(|file| ("PGSSLKEY", file)));
    let mut variables: Vec<_> = variables
        .into_iter()
        .map(|(name, value)| (name, Revealed::new(value)))
        .collect();
    if let Some(password) = password(&service::resolved(target, url)?) {
        variables.push(("PGPASSWORD", password));
    }
    Ok(variables)
}

/// The password in a URL, as it is meant.
fn password(url: &str) -> Option<Revealed> {
    let url = Url::parse(url).ok()?;
    let given = match url.password() {
        Some(written) => percent_encoding::percent_decode_str(written)
            .decode_utf8()
            .ok()?
            .into_owned(),
        None => url
            .query_pairs()
            .find(|(key, _)| key == "password")?
            .1
            .into_owned(),
    };
    Some(Revealed::new(given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::target;
    use windlass_engine::value::Value;

    #[test]
    fn programs_are_told_what_the_driver_is_told() {
        let url = "postgres://ana:a%20b@db.example:6432/shop";
        let mut orders = target("orders", "postgres", url);
        let told = |target: &Target, url: &str| -> Vec<String> {
            environment(target, url)
                .unwrap()
                .into_iter()
                .map(|(name, value)| format!("{name}={}", value.expose()))
                .collect()
        };
        assert_eq!(
            told(&orders, url),
            [
                "PGHOST=db.example",
                "PGPORT=6432",
                "PGUSER=ana",
                "PGSSLMODE=verify-full",
                "PGDATABASE=shop",
                "PGSSLROOTCERT=system",
                "PGPASSWORD=a b",
            ]
        );
        orders.options.insert("tls".to_owned(), Value::from("off"));
        assert_eq!(
            told(&orders, "postgres://ana@localhost/shop?host=/run/pg"),
            [
                "PGHOST=/run/pg",
                "PGPORT=5432",
                "PGUSER=ana",
                "PGSSLMODE=disable",
                "PGDATABASE=shop",
            ]
        );
    }
}
