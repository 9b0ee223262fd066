use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// What a path means. Names of applications are in upper case, all names decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/eureka/apps`
    All,
    /// `/eureka/apps/delta`
    Delta,
    /// `/eureka/apps/{APP}`
    Application(Cow<'a, str>),
    /// `/eureka/apps/{APP}/{ID}`
    Instance(Cow<'a, str>, Cow<'a, str>),
    /// `/eureka/apps/{APP}/{ID}/status`
    InstanceStatus(Cow<'a, str>, Cow<'a, str>),
    /// `/eureka/apps/{APP}/{ID}/metadata`
    InstanceMetadata(Cow<'a, str>, Cow<'a, str>),
    /// `/eureka/instances/{ID}`
    AnyInstance(Cow<'a, str>),
    /// `/eureka/vips/{VIP}`
    Vip(Cow<'a, str>),
    /// `/eureka/svips/{VIP}`
    SecureVip(Cow<'a, str>),
    /// `/eureka/status`
    Status,
    /// `/eureka/peerreplication/batch`
    Batch,
    /// `/eureka/asg/{NAME}/status`
    ScalingGroup,
    /// `/hopvine/v1/watch`
    Watch,
    /// `/`
    Page,
    /// Nothing.
    Nothing,
}

impl<'a> Route<'a> {
    /// Ours, or below `/eureka` and `/eureka/v2`, with or without a slash at the end.
    pub(super) fn of(path: &'a str) -> Self {
        match path {
            "/" => Self::Page,
            "/hopvine/v1/watch" => Self::Watch,
            _ => Self::of_eureka(path).unwrap_or(Self::Nothing),
        }
    }

    fn of_eureka(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/eureka/")?;
        let rest = rest.strip_prefix("v2/").unwrap_or(rest);
        // By an array: to search for a single character has a cost of its own, which segments are too short for.
        let mut segments = rest.strip_suffix('/').unwrap_or(rest).split(['/']);
        let first = segments.next()?;
        let rest = [segments.next(), segments.next(), segments.next()];
        if segments.next().is_some() {
            return None;
        }
        Some(match (first, rest) {
            ("apps", [None, ..]) => Self::All,
            ("apps", [Some("delta"), None, _]) => Self::Delta,
            ("apps", [Some(app), None, _]) => Self::Application(upper(app)?),
            ("apps", [Some(app), Some(id), None]) => Self::Instance(upper(app)?, decoded(id)?),
            ("apps", [Some(app), Some(id), Some("status")]) => Self::InstanceStatus(upper(app)?, decoded(id)?),
            ("apps", [Some(app), Some(id), Some("metadata")]) => Self::InstanceMetadata(upper(app)?, decoded(id)?),
            ("instances", [Some(id), None, _]) => Self::AnyInstance(decoded(id)?),
            ("vips", [Some(vip), None, _]) => Self::Vip(decoded(vip)?),
            ("svips", [Some(vip), None, _]) => Self::SecureVip(decoded(vip)?),
            ("status", [None, ..]) => Self::Status,
            ("peerreplication", [Some("batch"), None, _]) => Self::Batch,
            ("asg", [Some(_), Some("status"), None]) => Self::ScalingGroup,
            _ => return None,
        })
    }

    /// The methods there are; none for nothing.
    pub(super) fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::All
            | Self::Delta
            | Self::AnyInstance(_)
            | Self::Vip(_)
            | Self::SecureVip(_)
            | Self::Status
            | Self::Watch
            | Self::Page => &["HEAD", "GET", "OPTIONS"],
            Self::Application(_) => &["HEAD", "POST", "GET", "OPTIONS"],
            Self::Instance(..) => &["HEAD", "DELETE", "GET", "OPTIONS", "PUT"],
            Self::InstanceStatus(..) => &["DELETE", "OPTIONS", "PUT"],
            Self::InstanceMetadata(..) | Self::ScalingGroup => &["OPTIONS", "PUT"],
            Self::Batch => &["POST", "OPTIONS"],
            Self::Nothing => &[],
        }
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
        self.methods().contains(&method.as_str())
    }
}

/// One segment without its percent signs. Nothing that is not UTF-8 is a name.
fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    if segment.is_empty() {
        return None;
    }
    if !segment.as_bytes().contains(&b'%') {
        return Some(Cow::Borrowed(segment));
    }
    percent_decode_str(segment).decode_utf8().ok()
}

fn upper(segment: &str) -> Option<Cow<'_, str>> {
    let decoded = decoded(segment)?;
    let is_upper = decoded.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase());
    Some(if is_upper { decoded } else { Cow::Owned(decoded.to_uppercase()) })
}

/// The parameters of a query, in their order.
pub(super) fn parameters(query: Option<&str>) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

/// The first value of each parameter of these names.
pub(super) fn values<'a, const N: usize>(query: Option<&'a str>, names: [&str; N]) -> [Option<Cow<'a, str>>; N] {
    let mut values = [const { None }; N];
    for (name, value) in parameters(query) {
        if let Some(place) = names.iter().position(|wanted| *wanted == name) {
            values[place].get_or_insert(value);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_of_all_kinds_call_is_found() {
        let instance = Route::Instance("ORDERS".into(), "host1:orders:8080".into());
        for path in [
            "/eureka/apps/ORDERS/host1:orders:8080",
            "/eureka/apps/orders/host1%3Aorders%3A8080",
            "/eureka/v2/apps/ORDERS/host1:orders:8080/",
        ] {
            assert_eq!(Route::of(path), instance, "{path}");
        }
        assert_eq!(Route::of("/eureka/apps/"), Route::All);
        assert_eq!(Route::of("/eureka/apps/delta"), Route::Delta);
        assert_eq!(Route::of("/eureka/v2/apps/delta/"), Route::Delta);
        assert_eq!(Route::of("/eureka/apps/deltas"), Route::Application("DELTAS".into()));
        assert_eq!(Route::of("/eureka/peerreplication/batch/"), Route::Batch);
    }

    #[test]
    fn what_java_servers_do_not_know_is_nothing() {
        for path in [
            "/eureka",
            "/eureka/",
            "/eureka/v2",
            "/eureka/v2/",
            "/eureka//apps",
            "/eureka/v1/apps",
            "/eureka/v2/v2/apps",
            "/apps",
            "/v2/apps",
            "/eureka/apps//x",
            "/eureka/vips",
            "/eureka/apps/A/B/C",
            "/eureka/apps/A/B/status/x",
            "/eurekaapps",
            "/index.html",
            "/lastn",
            "/hopvine",
            "/eureka/apps/A/%ff",
        ] {
            assert_eq!(Route::of(path), Route::Nothing, "{path}");
        }
    }

    #[test]
    fn parameters_come_decoded() {
        let all: Vec<_> = parameters(Some("a%20b=1%262&zone=z2&zone=z3&empty=&none")).collect();
        let expected = [("a b", "1&2"), ("zone", "z2"), ("zone", "z3"), ("empty", ""), ("none", "")];
        assert_eq!(all.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);
        let query = Some("y=1&x=a+b&x=c&z&y=2");
        assert_eq!(
            values(query, ["x", "y", "z", "none"]),
            [Some("a b".into()), Some("1".into()), Some("".into()), None]
        );
        assert_eq!(values(None, ["x"]), [None]);
    }
}
