//! The pages: a few lines of text, no script, nothing from elsewhere.

use crate::insert::escaped;
use crate::link::Key;
use crate::names;
use crate::store::About;

/// Nothing is loaded, nothing runs, nobody may frame it; a click may save a file.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-downloads";

/// What a page without a file says.
pub(super) struct Text {
    title: &'static str,
    text: &'static str,
}

pub(super) const UNKNOWN: Text = Text {
    title: "No such file",
    text: "There is no file at this address. Check that the link was copied completely.",
};

pub(super) const EXPIRED: Text = Text {
    title: "No longer available",
    text: "The time for this download is over, and the file was removed. Ask the sender for it.",
};

pub(super) const UNAVAILABLE: Text = Text {
    title: "Not available at the moment",
    text: "The file cannot be read at the moment. Try again in a minute.",
};

pub(super) const WRONG_METHOD: Text = Text {
    title: "Not possible",
    text: "Files can only be downloaded here.",
};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:38em;margin:4em auto;padding:0 1em;color:#222;background:#fff}\
h1{font-size:1.3em;overflow-wrap:anywhere}dt{color:#666;float:left;width:7em}dd{margin-left:7em;overflow-wrap:anywhere}\
code{font-size:.85em}a.button{display:inline-block;margin:1em 0;padding:.6em 1.4em;border-radius:.3em;background:#1a56b0;color:#fff;text-decoration:none}\
a.button:focus,a.button:hover{background:#123d7d}";

pub(super) fn message(text: &Text) -> String {
    html(text.title, &format!("<p>{}</p>", text.text))
}

/// The page of a link. `token` was verified, so it is base64url.
pub(super) fn file(token: &str, key: Key, about: &About) -> String {
    let name = escaped(&names::shown(&about.name));
    let facts = [
        ("Size", names::size(about.size)),
        ("Type", names::media_type(&about.kind)),
        ("Until", names::date(key.expires)),
    ];
    let facts = facts.map(|(what, value)| format!("<dt>{what}</dt><dd>{}</dd>", escaped(&value)));
    let body = format!(
        "<p>This file was attached to a message.</p><p><a class=\"button\" id=\"download\" href=\"{token}/file\">Download</a></p>\
         <dl>{}<dt>SHA-256</dt><dd><code>{}</code></dd></dl>",
        facts.concat(),
        escaped(&about.sha256)
    );
    html(&name, &body)
}

fn html(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>{body}</body></html>\n"
    )
}
