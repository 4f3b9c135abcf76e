use super::*;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;

fn knowing(content: &str) -> Redactor {
    let redactor = Redactor::default();
    redactor.learn("pw", content);
    redactor
}

#[test]
fn replaces_it_whole_and_quoted() {
    let redactor = knowing("it's \"S&P\" 50%");
    for (said, clean) in [
        ("login it's \"S&P\" 50%!", "login «secret pw»!"),
        ("PASSWORD 'it''s \"S&P\" 50%'", "PASSWORD '«secret pw»'"),
        (
            "{\"pw\": \"it's \\\"S&P\\\" 50%\"}",
            "{\"pw\": \"«secret pw»\"}",
        ),
        ("it\\'s \\u0022S\\u0026P\\u0022 50\\u0025", "«secret pw»"),
        ("?pw=it%27s+%22S%26P%22+50%25&x=1", "?pw=«secret pw»&x=1"),
        ("?pw=it's%20%22S%26P%22%2050%25", "?pw=«secret pw»"),
        (
            "<b>it&#39;s &quot;S&amp;P&quot; 50%</b>",
            "<b>«secret pw»</b>",
        ),
        (
            "x'69742773202253265022203530 25'",
            "x'69742773202253265022203530 25'",
        ),
        ("x'6974277320225326502220353025'", "x'«secret pw»'"),
        ("nothing here", "nothing here"),
    ] {
        assert_eq!(redactor.text(said), clean, "{said}");
    }
}

#[test]
fn two_secrets_that_overlap_leave_nothing() {
    let redactor = Redactor::default();
    redactor.learn("a", "abcdef");
    redactor.learn("b", "defghi");
    assert_eq!(redactor.text("x abcdefghi y"), "x «secret a» y");
}

#[test]
fn wrapped_base64_and_pieces_at_the_ends() {
    let content = "correct-horse-battery-staple-of-the-orders-database-2024";
    let redactor = knowing(content);
    let long = STANDARD.encode(format!("user:{content}:more and more of it"));
    let wrapped: Vec<&str> = long
        .as_bytes()
        .chunks(20)
        .map(|chunk| std::str::from_utf8(chunk).unwrap())
        .collect();
    let clean = redactor.text(&wrapped.join("\n")).into_owned();
    assert!(clean.contains("«secret pw»"), "{clean}");
    let core = STANDARD.encode(content);
    assert!(
        !clean.replace('\n', "").contains(core.get(8..40).unwrap()),
        "{clean}"
    );
    assert_eq!(
        redactor.text("the login was correct-horse-battery…"),
        "the login was «secret pw»…"
    );
    assert_eq!(
        redactor.text("database-2024 is wrong"),
        "database-2024 is wrong"
    );
    assert_eq!(
        redactor.text("the-orders-database-2024 is wrong"),
        "«secret pw» is wrong"
    );
}

#[test]
fn a_url_gives_its_password_away_alone() {
    let redactor = knowing("postgres://app:hunter%2F22@db:5432/orders");
    assert_eq!(
        redactor.text("password hunter/22 is wrong, or hunter%2f22"),
        "password «secret pw» is wrong, or «secret pw»"
    );
    assert_eq!(
        redactor.text("db:5432/orders is down"),
        "db:5432/orders is down"
    );
}

#[test]
fn values_are_changed_only_where_they_hold_it() {
    let redactor = knowing("4711471147");
    let clean = Value::map([("rows", Value::list(vec![Value::Int(1), Value::from("a")]))]);
    assert!(!redactor.finds(&clean));
    assert_eq!(redactor.value(clean.clone()), clean);
    let dirty = Value::map([
        (
            "rows",
            Value::list(vec![Value::Int(4_711_471_147), Value::Int(47_114_711_471)]),
        ),
        ("4711471147", Value::Bytes(b"x4711471147".to_vec().into())),
    ]);
    let json = redactor.value(dirty).to_plain_json().to_string();
    assert!(
        !json.replace("47114711471", "").contains("4711471147"),
        "{json}"
    );
    assert!(
        json.contains("47114711471"),
        "a longer number stays: {json}"
    );
}

#[test]
fn a_part_that_is_too_short_is_left_alone() {
    let redactor = knowing("ab");
    assert_eq!(redactor.text("table"), "table");
}

const LONG: &str = "k3Jx9/Qz7+PwLm2vB8nYt5RcHd4sGf6aEu1iOo0TqWjXyZbNrMlKpVhC\
     gFeDdSsAa-2q3w4e5r6t7y8u9i0o_PzXcVbNm.LkJhGfDsAqWeRtYuIoP0123456";

fn folded(text: &str, width: usize, end: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let lines = text.chunks(width).map(String::from_iter);
    lines.collect::<Vec<_>>().join(end)
}

/// The longest piece of a secret that stands in a text.
fn told(text: &str, content: &str) -> usize {
    let squeeze = |text: &str| text.split_ascii_whitespace().collect::<String>();
    let (text, content) = (squeeze(text), squeeze(content));
    let at = |start: usize| {
        let ends = (start..=content.len()).rev();
        let piece = ends.filter_map(|end| content.get(start..end));
        piece.map(str::len).find(|len| {
            content
                .get(start..start + len)
                .is_some_and(|piece| text.contains(piece))
        })
    };
    (0..content.len()).filter_map(at).max().unwrap_or(0)
}

/// A program that wraps its lines hides no secret, in one text, in texts in a row and in a list of lines.
#[test]
fn lines_of_any_width_are_found() {
    let words = LONG.replace(['/', '+', '-'], " ");
    for content in [LONG, words.as_str()] {
        let redactor = knowing(content);
        for width in 16..content.len() {
            for end in ["\n", "\r\n"] {
                for said in [
                    content.to_owned(),
                    format!("the password is {content}, as it was before and will be ever after"),
                ] {
                    let said = folded(&said, width, end);
                    let clean = redactor.text(&said);
                    assert!(told(&clean, content) < 4, "{width}: {clean:?}");
                    let lines: Vec<&str> = said.split_inclusive('\n').collect();
                    let clean = redactor.in_row(&lines).unwrap();
                    assert_eq!(clean.len(), lines.len());
                    assert!(told(&clean.concat(), content) < 4, "{width}: {clean:?}");
                    let list = Value::list(said.lines().map(Value::from).collect());
                    let clean = redactor.value(list).to_plain_json().to_string();
                    let clean = clean.replace("\",\"", "");
                    assert!(told(&clean, content) < 4, "{width}: {clean:?}");
                }
            }
        }
    }
}

/// Of a wrapped secret, pieces are found as well: the end that is left of it, and a line alone.
#[test]
fn lines_that_are_left_of_it_are_found() {
    let redactor = knowing(LONG);
    let said = folded(LONG, 40, "\n");
    let lines: Vec<&str> = said.lines().collect();
    for said in [
        lines[1].to_owned(),
        format!("{}\n{}\nand more", lines[1], lines[2]),
        format!("{}\n{}", lines[0], lines[1]),
        format!("before\n\x1b[31m{}\x1b[0m\nafter", lines[1]),
        format!("…{}\n{}\nand more", lines[0].get(20..).unwrap(), lines[1]),
    ] {
        let clean = redactor.text(&said);
        assert!(told(&clean, LONG) < 4, "{said:?}: {clean:?}");
    }
    for (text, begun) in [
        ("nothing\n".to_owned(), None),
        (format!("pw: {}\n", LONG.get(..20).unwrap()), Some(4)),
        (format!("pw:\n{}\r\n{}\r\n", lines[0], lines[1]), Some(4)),
        (format!("x\n{}\n", lines[1]), Some(2)),
        (format!("{said}\n"), None),
    ] {
        assert_eq!(
            redactor.begun(&text),
            begun.unwrap_or(text.len()),
            "{text:?}"
        );
    }
}

/// A name inside a URL that is secret is none by itself.
#[test]
fn a_host_in_a_secret_url_is_no_secret() {
    let redactor = knowing("postgres://app:hunter2222@orders-db.internal.example.com:5432/orders");
    let host = "orders-db.internal.example.com:5432";
    assert_eq!(redactor.text(host), host);
    assert_eq!(
        redactor.text(&format!("at\n{host}\nnow")),
        format!("at\n{host}\nnow")
    );
}

fn percent(bytes: &[u8], keep: impl Fn(u8) -> bool, upper: bool) -> String {
    bytes
        .iter()
        .map(|&byte| match (keep(byte), upper) {
            (true, _) => char::from(byte).to_string(),
            (false, true) => format!("%{byte:02X}"),
            (false, false) => format!("%{byte:02x}"),
        })
        .collect()
}

proptest! {
    /// Encoders of another make than the decoders: what they write is found wherever it stands.
    #[test]
    fn no_encoder_hides_it(
        content in "[!-~]{6,40}|[a-zà-ÿ ]{8,30}",
        before in "[ -~]{0,12}",
        after in "[ -~]{0,12}",
    ) {
        // White space at its ends may be lost on the way.
        let content = content.trim().to_owned();
        prop_assume!(content.chars().count() >= 6);
        let redactor = knowing(&content);
        let whole = format!("{before}{content}{after}");
        let bytes = whole.as_bytes();
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        let json = serde_json::to_string(&whole).unwrap();
        let hidden = [
            whole.clone(),
            whole.replace('\'', "''"),
            json.clone(),
            serde_json::to_string(&json).unwrap(),
            format!("{whole:?}"),
            percent(bytes, unreserved, true),
            percent(bytes, unreserved, false),
            percent(bytes, |_| false, true),
            percent(bytes, |b| b != b'%' && b.is_ascii_graphic(), true),
            percent(percent(bytes, unreserved, true).as_bytes(), unreserved, true),
            hex::encode(bytes),
            hex::encode_upper(bytes),
            STANDARD.encode(bytes),
            STANDARD_NO_PAD.encode(bytes),
            URL_SAFE.encode(bytes),
            URL_SAFE_NO_PAD.encode(bytes),
        ];
        for text in hidden {
            let clean = redactor.text(&text).into_owned();
            prop_assert!(clean.contains("«secret pw»"), "{} in {}", content, text);
            prop_assert!(!clean.contains(&content), "{}", clean);
        }
    }

    /// What holds nothing of it is as it was, and nothing breaks on any text.
    #[test]
    fn any_text_is_read(text in "\\PC{0,60}|[%\\\\+a-f0-9u{}]{0,40}") {
        let redactor = knowing("correct-horse-battery-staple");
        prop_assert_eq!(redactor.text(&text), text.as_str());
    }
}
