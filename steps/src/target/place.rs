//! The place of a derived target: the url of another, with some parts replaced.
use reqwest::Url;
use windlass_engine::step::{Failure, Revealed, Target};

/// What a derived target may replace.
const KEYS: &[&str] = &["host", "port", "database", "login", "password"];

/// The url of a target: changed where it is a derived one.
pub(super) fn url(
    target: &Target,
    url: &str,
    password: Option<&Revealed>,
) -> Result<Revealed, Failure> {
    if KEYS.iter().any(|key| target.options.contains_key(*key)) {
        replaced(target, url, password)
    } else {
        Ok(Revealed::new(url.to_owned()))
    }
}

/// The url with the keys of the target in place of its parts. Another login does not take the password of the first one
/// along.
fn replaced(target: &Target, url: &str, password: Option<&Revealed>) -> Result<Revealed, Failure> {
    // Nothing of the url is in the message: it may hold a password.
    let wrong = |key: &str| {
        Failure::new(
            "target.derive",
            format!(
                "{key} of target {} cannot be put into the url of the target that it is like",
                target.name
            ),
        )
        .help("a url such as postgres://user@host:5432/database can be changed so")
    };
    let mut url = Url::parse(url).map_err(|_| wrong("the place"))?;
    let option = |key: &str| target.options.get(key).map(ToString::to_string);
    if let Some(host) = option("host") {
        url.set_host(Some(&host)).map_err(|_| wrong("host"))?;
    }
    if let Some(port) = option("port") {
        let port = port.parse().map_err(|_| wrong("port"))?;
        url.set_port(Some(port)).map_err(|()| wrong("port"))?;
    }
    if let Some(database) = option("database") {
        url.path_segments_mut()
            .map_err(|()| wrong("database"))?
            .clear()
            .push(&database);
    }
    if let Some(login) = option("login") {
        url.set_username(&login).map_err(|()| wrong("login"))?;
        url.set_password(None).map_err(|()| wrong("login"))?;
    }
    if let Some(password) = password {
        url.set_password(Some(password.expose()))
            .map_err(|()| wrong("password"))?;
    }
    Ok(Revealed::new(url.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::target;
    use windlass_engine::value::Value;

    fn changed(url: &str, keys: &[(&str, Value)]) -> Result<String, Failure> {
        let mut target = target("copy", "postgres", url);
        for (key, value) in keys {
            target.options.insert((*key).to_owned(), value.clone());
        }
        let password = target
            .options
            .get("password")
            .map(|password| Revealed::new(password.to_string()));
        replaced(&target, url, password.as_ref()).map(|url| url.expose().to_owned())
    }

    #[test]
    fn a_part_is_replaced_and_the_rest_stays() {
        let url = "postgres://app:pw@db1:5432/orders?application_name=x";
        let text = |text: &str| Value::from(text);
        for (keys, wanted) in [
            (
                vec![("database", text("a b/c"))],
                "postgres://app:pw@db1:5432/a%20b%2Fc?application_name=x",
            ),
            (
                vec![("host", text("db2")), ("port", Value::Int(6432))],
                "postgres://app:pw@db2:6432/orders?application_name=x",
            ),
            (
                vec![("login", text("other"))],
                "postgres://other@db1:5432/orders?application_name=x",
            ),
            (
                vec![("login", text("other")), ("password", text("p@ss w/rd"))],
                "postgres://other:p%40ss%20w%2Frd@db1:5432/orders?application_name=x",
            ),
        ] {
            assert_eq!(changed(url, &keys).unwrap(), wanted);
        }
        let failure = changed(url, &[("port", text("many"))]).unwrap_err();
        assert!(!failure.to_string().contains("pw"), "{failure}");
        assert!(changed("postgres:///orders", &[("port", Value::Int(1))]).is_err());
    }
}
