use http::Uri;

/// The longest address that becomes a link, in bytes.
const LONGEST: usize = 2000;

/// A link to an instance's own page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: &'static str,
    pub(super) url: String,
}

impl Link {
    /// Only over HTTP or HTTPS, to a host, and as nobody else: everything else stays text.
    pub(super) fn new(name: &'static str, url: Option<&str>) -> Option<Self> {
        let url = url.filter(|url| url.len() <= LONGEST && url.bytes().all(is_of_urls))?;
        let parsed: Uri = url.parse().ok()?;
        let is_web = parsed.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
        let host =
            parsed.authority().filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
        // As it was parsed, not as it came: a browser might read that otherwise.
        (is_web && host.is_some()).then(|| Self { name, url: parsed.to_string() })
    }
}

/// Whether it may stand in a URL as it is. A quote may, and has no business there.
fn is_of_urls(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&()*+,;=%".contains(&byte)
}

/// A link to a part of the page.
pub(super) fn part(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::for_suffix("/?".to_owned(), "/?".len()).extend_pairs(parameters).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_web_become_links() {
        for url in ["http://host:8080/", "https://10.0.0.1/actuator/info?a=b#c", "HTTP://[::1]:80/"] {
            assert!(Link::new("home", Some(url)).is_some(), "{url}");
        }
        for url in [
            "javascript:alert(1)",
            "JavaScript://host/%0aalert(1)",
            " javascript:alert(1)",
            "\tjavascript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "ftp://host/",
            "//host/",
            "/path",
            "host:80",
            "http:",
            "http://",
            "http:///x",
            "http:host",
            "http://good.example@evil.example/",
            "http://host/\"onclick=alert(1)",
            "http://host/'onclick=alert(1)",
            "http://host/<b>",
            "http://host\\@evil.example/",
            "http://host/ x",
            "http://host/\u{202e}",
            "http://h\u{f6}st/",
            "",
        ] {
            assert_eq!(Link::new("home", Some(url)), None, "{url}");
        }
        assert_eq!(Link::new("home", Some(&format!("http://host/{}", "x".repeat(LONGEST)))), None);
        assert_eq!(Link::new("home", None), None);
    }

    #[test]
    fn a_name_in_a_link_is_only_a_name() {
        assert_eq!(part(&[("app", "A&after=\"<\u{e9}/ ")]), "/?app=A%26after%3D%22%3C%C3%A9%2F+");
        assert_eq!(part(&[("app", "A"), ("after", "b:80")]), "/?app=A&after=b%3A80");
    }
}
