//! Configurations that are kept centrally: the choice of one for a call, its merge with the call's
//! own configuration, and the rules for its content.

use std::sync::Arc;

use crate::core::range::Ranges;
use crate::core::stage::Stage;

use super::args::Args;
use super::error::{Code, Error};
use super::json::Json;
use super::json_cursor::JsonCursor;
use super::namespaces;
use super::netconf::{self, IDENTIFIER_RULE, is_identifier};
use super::request::Verb;
use super::unknown::{UnknownKey, unknown};
use crate::limits::NAME_BYTES_MAX;

/// The name of a centrally kept object in messages about its syntax.
const OBJECT: &str = "ipam object";

/// Keys of `ipam` that refer to a central object, and so must not be in one.
const REFERENCES: [&str; 2] = ["network", "networkFrom"];

/// The source of centrally kept `ipam` objects.
pub trait Central {
    /// Looks up the object of a network.
    fn find(&self, network: &str) -> Found;
}

/// The result of looking up a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Its `ipam` object, as JSON text.
    Object(Arc<str>),
    /// No object.
    Nothing,
    /// Not known yet: the cluster's store has not answered.
    Unknown,
}

/// A central object that a call uses.
pub(super) struct Kept {
    /// The network of the object: all calls that use the object share this network's pool.
    pub(super) network: Arc<str>,
    /// The `ipam` object, as JSON text.
    pub(super) object: Arc<str>,
}

/// A source that has no object for any network.
pub(super) struct Nowhere;

impl Central for Nowhere {
    fn find(&self, _: &str) -> Found {
        Found::Nothing
    }
}

/// The central object for a call, if its own configuration has no ranges: that of the network that
/// `ipam.network` names, or that has the name of the pod's service (`ipam.networkFrom`), or else
/// that of the CNI network `name`.
///
/// # Errors
/// [`Code::Config`] when the configuration refers to an object that does not exist,
/// [`Code::TryAgain`] when that is not known yet.
pub(super) fn find(
    root: &JsonCursor<'_>,
    name: &str,
    verb: Verb,
    cni_args: &str,
    central: &dyn Central,
) -> Result<Option<Kept>, Error> {
    let Some(ipam) = root.object("ipam")? else { return Ok(None) };
    if ipam.get("ranges").is_some() || ipam.get("subnet").is_some() {
        return Ok(None);
    }
    let given = |key| ipam.string(key).map(|text| text.filter(|text| !text.is_empty()));
    let (named, from) = (given("network")?, given("networkFrom")?);
    let network = match (named, from) {
        (Some(network), _) => {
            check_name(network).map_err(|rule| refuse(&ipam, "network", &rule))?;
            network
        }
        // The ranges depend on the pod, and a STATUS is about no pod.
        (None, Some("service")) if verb == Verb::Status => return Ok(None),
        (None, Some("service")) => service(cni_args)?,
        (None, Some(_)) => return Err(refuse(&ipam, "networkFrom", "must be \"service\"")),
        (None, None) => name,
    };
    let own = named.is_none() && from.is_none();
    // Ranges from the runtime are enough, also if they come only with an attachment.
    let runtime = root.get("runtimeConfig");
    let later = verb == Verb::Status && netconf::runtime_gives_ranges(root);
    let optional = later || runtime.is_some_and(|r| r.get("ipRanges").is_some());
    match central.find(network) {
        Found::Object(object) => Ok(Some(Kept { network: network.into(), object })),
        Found::Nothing | Found::Unknown if own && optional => Ok(None),
        Found::Nothing if own => Ok(None), // no ranges at all: the reader of ranges reports it
        Found::Nothing => {
            let msg = format!("network {network} has no central configuration");
            let way = if named.is_some() { "ipam.network" } else { "ipam.networkFrom: service" };
            Err(Error::new(Code::Config, msg).with_details(format!(
                "{way} refers to it: create it with `leasehold network put {network} FILE`"
            )))
        }
        Found::Unknown => {
            let msg = format!(
                "the central configuration of network {network} is not known yet: the cluster's \
                 store has not answered since the daemon started"
            );
            let details = "check with `leasehold status` whether etcd can be reached";
            Err(Error::new(Code::TryAgain, msg).with_details(details))
        }
    }
}

fn refuse(ipam: &JsonCursor<'_>, key: &'static str, what: &str) -> Error {
    match ipam.get(key) {
        Some(node) => node.refuse(what),
        None => ipam.refuse(what),
    }
}

fn service(cni_args: &str) -> Result<&str, Error> {
    let refuse = |msg: String| {
        Err(Error::new(Code::Config, msg).with_details(
            "ipam.networkFrom \"service\" needs a pod name of the form \
             <service>-<number>-<stage>-...; or name the network in ipam.network",
        ))
    };
    let Some(pod) = Args::parse(cni_args)?.pod_name else {
        let msg = "cannot derive the network: CNI_ARGS has no pod name (K8S_POD_NAME)";
        return refuse(msg.to_owned());
    };
    match service_of_pod(pod) {
        Some(service) if check_name(service).is_ok() => Ok(service),
        _ => refuse(format!("cannot derive a service from pod name {pod}")),
    }
}

/// The service in a pod name of the form `<service>-<number>-<stage>-...`: the part before the
/// number that a known stage follows, or else before the first number that is followed by anything
/// but a number.
fn service_of_pod(name: &str) -> Option<&str> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    // Every way to read the name as <before>-<number>-<next>...
    let ways = name.match_indices('-').filter_map(|(at, _)| {
        let mut parts = name[at + 1..].split('-');
        let (part, next) = (parts.next()?, parts.next()?);
        (at > 0 && number(part)).then_some((&name[..at], next))
    });
    let staged = ways.clone().find(|(_, next)| Stage::parse(next).is_some());
    let other = || ways.clone().find(|(_, next)| !next.is_empty() && !number(next));
    staged.or_else(other).map(|(before, _)| before)
}

/// The configuration with the central object's fields added where it has none of its own.
///
/// # Errors
/// [`Code::Config`] when the central text is not a JSON object.
pub(super) fn merge<'a>(config: &Json<'a>, object: &'a str) -> Result<Json<'a>, Error> {
    let stored = Json::parse(object.as_bytes(), OBJECT);
    let (Json::Object(own), Ok(Json::Object(mut fields))) = (config, stored) else {
        let msg = "the central configuration of the network cannot be read";
        let details = "replace it with `leasehold network put NAME FILE`";
        return Err(Error::new(Code::Config, msg).with_details(details));
    };
    let has = |key: &str| fields.iter().any(|(own, _)| own.eq_ignore_ascii_case(key));
    // The owner of the pool says who may use it.
    let kept: Vec<&str> = namespaces::KEYS.into_iter().filter(|key| has(key)).collect();
    let counts = |key: &str, value: &Json<'_>| {
        *value != Json::Null && !kept.iter().any(|kept| kept.eq_ignore_ascii_case(key))
    };
    // Of two equal keys the last one counts.
    if let Some(Json::Object(ipam)) = config.member("ipam") {
        fields.extend(ipam.iter().filter(|(key, value)| counts(key, value)).cloned());
    }
    let mut merged = own.clone();
    merged.push(("ipam".into(), Json::Object(fields)));
    Ok(Json::Object(merged))
}

/// Checks that a network may have this name.
///
/// # Errors
/// The rule that the name breaks, as the end of a sentence that begins with the name.
pub fn check_name(name: &str) -> Result<(), String> {
    match name {
        name if !is_identifier(name) => {
            Err(format!("is not a valid network name: {IDENTIFIER_RULE}"))
        }
        name if name.len() > NAME_BYTES_MAX => {
            Err(format!("is too long for a network name, which has at most {NAME_BYTES_MAX} bytes"))
        }
        _ => Ok(()),
    }
}

/// The range sets of an `ipam` object that may be kept centrally.
///
/// # Errors
/// As [`check_keys`].
pub fn check(object: &[u8]) -> Result<Vec<Ranges>, Error> {
    check_keys(object).map(|(sets, _)| sets)
}

/// Checks an `ipam` object before it is kept centrally, by all rules for network configurations.
/// Returns its range sets, and its keys without effect.
///
/// # Errors
/// [`Code::Decode`] or [`Code::Config`], with the fault and its field.
pub fn check_keys(object: &[u8]) -> Result<(Vec<Ranges>, Vec<UnknownKey>), Error> {
    let ipam = Json::parse(object, OBJECT)?;
    if !matches!(ipam, Json::Object(_)) {
        let msg = format!("an ipam object must be an object, not {}", ipam.kind());
        return Err(Error::new(Code::Decode, msg));
    }
    if ipam.member("ipam").is_some() {
        return Err(Error::new(Code::Config, "this is a whole network configuration")
            .with_details("give only the value of its \"ipam\""));
    }
    let config = Json::Object(vec![("ipam".into(), ipam)]);
    let root = netconf::root(&config)?;
    let mut without_effect = Vec::new();
    if let Some(ipam) = root.object("ipam")? {
        without_effect = unknown(&ipam);
        for key in REFERENCES {
            if let Some(reference) = ipam.get(key) {
                return Err(reference.refuse("refers to a central object, and must not be in one"));
            }
        }
    }
    Ok((netconf::ranges_and_routes(&root)?, without_effect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::parse::split;
    use crate::cni::request::{Add, Body, Calls};
    use crate::cni::vectors::{Call, with_ipam};

    /// One object, of network `corp`, `net` or `pay`; or a store that has not answered.
    struct Fake(&'static str, Option<&'static str>);

    impl Central for Fake {
        fn find(&self, network: &str) -> Found {
            match self.1 {
                None => Found::Unknown,
                Some(object) if network == self.0 => Found::Object(object.into()),
                Some(_) => Found::Nothing,
            }
        }
    }

    const OBJECT: &str = r#"{"ranges":[[{"subnet":"10.1.2.0/24"}]],
        "routes":[{"dst":"10.0.0.0/8"}],"resolvConf":"/central"}"#;

    fn add_with(call: &Call, central: &Fake) -> Result<Add, Error> {
        match split(call.body().as_bytes(), central)? {
            Calls::One(request) => match request.body {
                Body::Add(add) => Ok(*add),
                other => panic!("not an ADD: {other:?}"),
            },
            Calls::Many(_) => panic!("not an array"),
        }
    }

    fn add(ipam: &str, args: &str, central: &Fake) -> Result<Add, Error> {
        add_with(&Call { args: args.into(), ..with_ipam(ipam) }, central)
    }

    #[test]
    fn the_network_is_found_by_reference_service_or_name() {
        let pod = "K8S_POD_NAME=pay-10-sandbox-a";
        for (of, ipam) in [
            ("net", r#"{"type":"my-ipam","socket":"/x"}"#),
            ("net", r#"{"ranges":null,"network":"","networkFrom":null}"#),
            ("corp", r#"{"network":"corp","networkFrom":"service"}"#),
            ("pay", r#"{"networkFrom":"service"}"#),
        ] {
            let add = add(ipam, pod, &Fake(of, Some(OBJECT))).unwrap();
            assert_eq!(add.sets[0].to_string(), "10.1.2.1-10.1.2.254", "{ipam}");
            assert_eq!(add.routes.len(), 1);
            let call = Call { args: pod.into(), ..with_ipam(ipam) };
            let calls = split(call.body().as_bytes(), &Fake(of, Some(OBJECT))).unwrap();
            let Calls::One(request) = calls else { panic!("not an array") };
            assert_eq!((&*request.network, &*request.pool), ("net", of), "{ipam}");
        }
    }

    #[test]
    fn fields_of_the_call_win_and_its_ranges_need_no_other() {
        let central = Fake("net", Some(OBJECT));
        let own = r#"{"resolvConf":"/own","routes":null}"#;
        let merged = add(own, "", &central).unwrap();
        assert_eq!(merged.resolv_conf.unwrap().path.to_str(), Some("/own"));
        assert_eq!(merged.routes.len(), 1);
        for ipam in [r#"{"subnet":"10.9.0.0/24"}"#, r#"{"ranges":[[{"subnet":"10.9.0.0/24"}]]}"#] {
            let own = add(ipam, "", &central).unwrap();
            assert_eq!(own.sets.len(), 1);
            assert_eq!(own.sets[0].to_string(), "10.9.0.1-10.9.0.254");
            assert_eq!((own.routes.len(), own.resolv_conf), (0, None));
        }
    }

    #[test]
    fn the_call_does_not_say_which_namespaces_may_use_a_central_pool() {
        let object = r#"{"ranges":[[{"subnet":"10.1.2.0/24"}]],"namespaces":["pay"]}"#;
        let pay = Fake("pay", Some(object));
        let pod = |of: &str| format!("K8S_POD_NAMESPACE={of};K8S_POD_NAME=pay-1-sandbox-x");
        for ipam in [
            r#"{"networkFrom":"service"}"#,
            r#"{"networkFrom":"service","namespaces":["evil"]}"#,
            r#"{"networkFrom":"service","NAMESPACES":["evil"]}"#,
            r#"{"networkFrom":"service","namespaces":null}"#,
            r#"{"network":"pay","namespaces":["evil"]}"#,
        ] {
            assert_eq!(add(ipam, &pod("evil"), &pay).unwrap_err().code, Code::NotAllowed, "{ipam}");
            assert!(add(ipam, &pod("pay"), &pay).is_ok(), "{ipam}");
        }
        // A pool without such a list may be narrowed.
        let own = r#"{"network":"corp","namespaces":["pay"]}"#;
        let error = add(own, &pod("evil"), &Fake("corp", Some(OBJECT))).unwrap_err();
        assert_eq!(error.code, Code::NotAllowed);
    }

    #[test]
    fn a_way_that_leads_nowhere_is_an_error_with_a_remedy() {
        let pod = |name: &str| format!("K8S_POD_NAME={name}");
        let from = r#"{"networkFrom":"service"}"#;
        for (ipam, args, msg, details) in [
            ("{}", String::new(), "no IP ranges specified", "leasehold network put"),
            (
                r#"{"network":"other"}"#,
                String::new(),
                "network other has no central configuration",
                "leasehold network put other FILE",
            ),
            (
                from,
                pod("pay-1-online-x"),
                "network pay has no central configuration",
                "leasehold network put pay FILE",
            ),
            (from, pod("mysql-0"), "cannot derive a service from pod name mysql-0", "ipam.network"),
            (from, String::new(), "cannot derive the network", "<service>-<number>-<stage>-..."),
            (r#"{"networkFrom":"x"}"#, String::new(), "ipam.networkFrom must be \"service\"", ""),
            (r#"{"network":"a/b"}"#, String::new(), "ipam.network is not a valid network name", ""),
        ] {
            let error = add(ipam, &args, &Fake("net-of-others", Some(OBJECT))).unwrap_err();
            assert_eq!(error.code, Code::Config, "{error:?}");
            assert!(error.msg.starts_with(msg), "{error:?}");
            assert!(error.details.contains(details), "{error:?}");
        }
        let broken = add("{}", "", &Fake("net", Some(r#"{"ranges":7}"#))).unwrap_err();
        assert_eq!(broken.msg, "ipam.ranges must be an array, not a number");
        let broken = add("{}", "", &Fake("net", Some("[]"))).unwrap_err();
        assert_eq!((broken.code, broken.details.contains("put")), (Code::Config, true));
    }

    #[test]
    fn what_is_not_known_yet_is_to_be_tried_again_unless_it_is_not_needed() {
        let unknown = Fake("", None);
        assert_eq!(add("{}", "", &unknown).unwrap_err().code, Code::TryAgain);
        let runtime = r#","runtimeConfig":{"ipRanges":[[{"subnet":"10.7.0.0/24"}]]}"#;
        let call = Call { more: runtime.into(), ..with_ipam("{}") };
        assert_eq!(add_with(&call, &unknown).unwrap().sets.len(), 1);
        // The ranges of the runtime and the central ranges add up.
        assert_eq!(add_with(&call, &Fake("net", Some(OBJECT))).unwrap().sets.len(), 2);
        let status = |ipam: &str| {
            let call = Call { command: "STATUS", version: "1.1.0", ..with_ipam(ipam) };
            split(call.body().as_bytes(), &unknown).map(|_| ())
        };
        assert_eq!(status("{}").unwrap_err().code, Code::TryAgain);
        assert_eq!(status(r#"{"networkFrom":"service"}"#), Ok(()));
        assert_eq!(status(r#"{"network":"corp"}"#).unwrap_err().code, Code::TryAgain);
        // A DEL needs no ranges.
        let del = Call { command: "DEL", ..with_ipam("{}") };
        assert!(split(del.body().as_bytes(), &unknown).is_ok());
    }

    #[test]
    fn the_service_stands_before_the_number() {
        for (pod, service) in [
            ("pay-10-sandbox-84f8cc5d4b-8v4fw", Some("pay")),
            ("pay-10-online-84f8cc5d4b-8v4fw", Some("pay")),
            ("pay-v2-10-smallflow-84f8cc5d4b-8v4fw", Some("pay-v2")),
            ("pay-2-10-sandbox-84f8cc5d4b-8v4fw", Some("pay-2")),
            ("pay-2-10-online-84f8cc5d4b-8v4fw", Some("pay-2")),
            ("a-1-b-2-sandbox-x", Some("a-1-b")),
            ("backup-28123456-4tn9z", Some("backup")),
            ("mysql-0", None),
            ("nginx-7d9c4b5f6-abcde", None),
            ("10-sandbox", None),
            ("-10-sandbox", None),
            ("pay-10-", None),
            ("", None),
        ] {
            assert_eq!(service_of_pod(pod), service, "{pod}");
        }
    }

    #[test]
    fn an_object_is_checked_like_a_configuration() {
        assert_eq!(check(OBJECT.as_bytes()).unwrap().len(), 1);
        let small = br#"{"type":"my-ipam","subnet":"fd00::/64","blockSize6":120}"#;
        assert_eq!(check(small).unwrap()[0].block_size.map(|size| size.log2()), Some(8));
        for (object, msg) in [
            ("[]", "an ipam object must be an object, not an array"),
            ("{", "ipam object is not valid JSON at line 1 column 1: EOF while parsing an object"),
            ("{}", "no IP ranges specified"),
            (r#"{"ipam":{}}"#, "this is a whole network configuration"),
            (r#"{"ranges":[[{"subnet":5}]]}"#, "ipam.ranges[0][0].subnet must be a string, not"),
            (r#"{"subnet":"10.0.0.0/24","routes":[{}]}"#, "ipam.routes[0] has no dst"),
            (r#"{"subnet":"10.0.0.0/24","resolvConf":7}"#, "ipam.resolvConf must be a string"),
            (r#"{"subnet":"10.0.0.0/24","network":"x"}"#, "ipam.network refers to a central"),
            (r#"{"subnet":"10.0.0.0/24","blockSize":99}"#, "ipam.blockSize"),
        ] {
            let error = check(object.as_bytes()).unwrap_err();
            assert!(error.msg.starts_with(msg), "{object}: {error:?}");
        }
    }
}
