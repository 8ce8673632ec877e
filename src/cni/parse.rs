//! Parses the body of a request into typed calls.

use std::sync::Arc;

use crate::core::time::StartTime;
use crate::limits::CALLS_PER_ARRAY_MAX;

use super::central::{self, Central, Nowhere};
use super::envelope::{self, Envelope};
use super::error::{Code, Error};
use super::gc;
use super::json::Json;
use super::negotiate::negotiate;
use super::netconf::{self, Surroundings};
use super::request::{Body, Calls, Del, Request, Verb};
use super::salvage;
use super::version::Version;

/// Parses a body that holds one call, without any central configuration.
///
/// # Errors
/// The error object to answer with: a code below 10 and, as soon as it is known, the
/// configuration's `cniVersion`.
pub fn parse(body: &[u8]) -> Result<Request, Error> {
    match envelope::read(body) {
        Ok(json) => call(&json, &Nowhere),
        Err(error) => salvaged(body).ok_or(error)?,
    }
}

/// The DEL in a body whose configuration cannot be read: its name is all that counts.
fn salvaged(body: &[u8]) -> Option<Result<Request, Error>> {
    let body = salvage::del(body)?;
    Some(envelope::read(&body).and_then(|json| call(&json, &Nowhere)))
}

/// Parses a body that holds one call, or an array of up to [`CALLS_PER_ARRAY_MAX`] calls. Calls
/// without ranges of their own get the object that `central` has for them.
///
/// # Errors
/// As [`parse`] for one call; for an array only when it is not JSON or has too many calls.
pub fn split(body: &[u8], central: &dyn Central) -> Result<Calls, Error> {
    let json = match envelope::read(body) {
        Ok(json) => json,
        Err(error) => return salvaged(body).ok_or(error)?.map(Calls::One),
    };
    match json {
        Json::Array(calls) if calls.len() > CALLS_PER_ARRAY_MAX => {
            let msg = format!("{} calls in one request body", calls.len());
            Err(Error::new(Code::Decode, msg)
                .with_details(format!("{CALLS_PER_ARRAY_MAX} are allowed: send several arrays")))
        }
        Json::Array(calls) => Ok(Calls::Many(calls.iter().map(|one| call(one, central)).collect())),
        one => call(&one, central).map(Calls::One),
    }
}

/// Parses one call. The checks have the order of the CNI library's dispatcher (`pkg/skel`).
fn call(json: &Json<'_>, central: &dyn Central) -> Result<Request, Error> {
    let envelope = Envelope::new(json)?;
    request(&envelope, central).map_err(|error| {
        let verb = Verb::parse(envelope.command).map(Verb::as_str);
        let error = Error { verb, ..error };
        match raw_version(envelope.config) {
            None => error,
            Some("") => error.version(Version::V0_1_0.as_str()),
            Some(known) => error.version(known),
        }
    })
}

fn request(envelope: &Envelope<'_>, central: &dyn Central) -> Result<Request, Error> {
    let verb = Verb::parse(envelope.command);
    let id = envelope.id(verb)?;
    let config = match envelope.config {
        Some(config) => config,
        None if verb == Some(Verb::Version) => &Json::Object(Vec::new()),
        None => {
            return Err(Error::new(Code::Decode, "request body has no network configuration")
                .with_details("its key is \"config\""));
        }
    };
    let root = netconf::root(config)?;
    let network = if verb == Some(Verb::Version) { "" } else { netconf::name(&root)? };
    let verb = verb.ok_or_else(|| {
        let known = Verb::ALL.map(Verb::as_str).join(", ");
        Error::new(Code::Environment, format!("unknown CNI_COMMAND: {}", envelope.command))
            .with_details(format!("the commands are {known}"))
    })?;
    // A DEL needs only the name and the id. Any other fault was there at the ADD, or is newer than
    // the ADD, and an error would only strand the addresses.
    let raw = match (verb, root.string("cniVersion")) {
        (Verb::Del, raw) => raw.ok().flatten(),
        (_, raw) => raw?,
    }
    .unwrap_or_default();
    let version = match verb {
        Verb::Del | Verb::Version => Version::parse(raw).unwrap_or(Version::NEWEST),
        _ => negotiate(verb, raw)?,
    };
    let kept = match verb {
        Verb::Add | Verb::Check | Verb::Status => {
            central::find(&root, network, verb, envelope.args, central)?
        }
        // Its object may say where host-local's files are. More does not count.
        Verb::Del => central::find(&root, network, verb, envelope.args, central).unwrap_or(None),
        Verb::Gc | Verb::Version => None,
    };
    let merged = match &kept {
        Some(kept) if verb == Verb::Del => central::merge(config, &kept.object).ok(),
        Some(kept) => Some(central::merge(config, &kept.object)?),
        None => None,
    };
    let root = netconf::root(merged.as_ref().unwrap_or(config))?;
    let (args, resolv_conf) = (envelope.args, envelope.resolv_conf);
    let surroundings = |id| Surroundings { id, args, resolv_conf };
    let body = match verb {
        Verb::Add => Body::Add(Box::new(netconf::add(&root, (version, raw), surroundings(id))?)),
        Verb::Del => Body::Del(Del { id, data_dir: netconf::data_dir(&root).unwrap_or_default() }),
        Verb::Check => Body::Check(netconf::check(&root, id, (version, raw))?),
        Verb::Gc => Body::Gc(gc::gc(&root)?),
        Verb::Status => Body::Status(netconf::status(&root, (version, raw), surroundings(id))?),
        Verb::Version => Body::Version { echo: raw.into() },
    };
    let network: Arc<str> = network.into();
    Ok(Request {
        verb,
        version,
        pool: kept.as_ref().map_or_else(|| network.clone(), |kept| kept.network.clone()),
        network,
        started_at: envelope.started_at.map(StartTime::from_nanos),
        waited_since: envelope.waited_since.map(StartTime::from_nanos),
        undo: envelope.undo,
        netns: envelope.netns.into(),
        body,
    })
}

/// `cniVersion` as written, empty if it is absent; `None` if the configuration is not an object or
/// the version is not a text.
fn raw_version<'a>(config: Option<&'a Json<'a>>) -> Option<&'a str> {
    match config? {
        Json::Object(_) => {}
        _ => return None,
    }
    match config?.member("cniVersion") {
        None | Some(Json::Null) => Some(""),
        Some(Json::String(text)) => Some(text),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::request::{Pod, Status};
    use crate::cni::vectors::{Call, code_of, with_ipam};
    use crate::core::stage::Stage;

    const IPAM: &str = r#"{"ranges":[[{"subnet":"10.1.2.0/24","sandbox":["10.1.2.9"]}]]}"#;

    fn call(command: &'static str, version: &'static str, more: &str) -> Call {
        Call { command, version, more: more.into(), ..with_ipam(IPAM) }
    }

    fn parsed(call: &Call) -> Request {
        parse(call.body().as_bytes()).unwrap()
    }

    #[test]
    fn an_add_is_read_whole() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pay-10-sandbox-a;X=1";
        let request = parsed(&Call { args: args.into(), ..call("ADD", "1.1.0", "") });
        assert_eq!((request.verb, request.version), (Verb::Add, Version::V1_1_0));
        assert_eq!(
            (&*request.network, request.started_at, request.undo),
            ("net", Some(StartTime::from_nanos(12)), false)
        );
        let Body::Add(add) = request.body else { panic!() };
        assert_eq!((&*add.id.container_id.to_text(), &*add.id.ifname), ("c1", "eth0"));
        assert_eq!(add.stage, Some(Stage::Sandbox));
        let (namespace, name) = ("shop".into(), "pay-10-sandbox-a".into());
        assert_eq!(add.pod, Some(Pod { namespace, name }));
    }

    #[test]
    fn a_del_needs_no_more_than_name_and_id() {
        for config in [
            r#"{"name":"n","ipam":5,"args":[],"runtimeConfig":7,"cniVersion":"9.9"}"#,
            r#"{"name":"n","cniVersion":5,"prevResult":"x"}"#,
            r#"{"NAME":"n","ipam":{"ranges":[[{"subnet":"no"}]]}}"#,
        ] {
            let body = format!(
                r#"{{"command":"DEL","containerId":"c","ifname":"e","args":"rubbish;","netns":"",
                "startedAt":5,"undo":true,"config":{config}}}"#
            );
            let request = parse(body.as_bytes()).unwrap();
            assert_eq!(&*request.network, "n");
            assert!(request.undo && matches!(request.body, Body::Del(_)));
        }
        let body =
            r#"{"command":"DEL","containerId":"c","ifname":"e","config":{"cniVersion":"9"}}"#;
        let error = parse(body.as_bytes()).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code::Config, "missing network name"));
        assert_eq!(error.cni_version, "9");
    }

    #[test]
    fn checks_come_in_the_order_of_the_cni_library() {
        let config = |config: &str| {
            format!(r#"{{"command":"FOO","containerId":"c","ifname":"e","config":{config}}}"#)
        };
        for (body, code, msg) in [
            (config("5"), Code::Decode, "network configuration must be an object, not a number"),
            (config("null"), Code::Decode, "request body has no network configuration"),
            (config("{}"), Code::Config, "missing network name"),
            (config(r#"{"name":""}"#), Code::Config, "missing network name"),
            (config(r#"{"name":5}"#), Code::Config, "name must be a string, not a number"),
            (config(r#"{"name":"a b"}"#), Code::Config, "invalid characters found in network name"),
            (
                config(&format!(r#"{{"name":"{}"}}"#, "n".repeat(256))),
                Code::Config,
                "network name is too long",
            ),
            (config(r#"{"name":"n"}"#), Code::Environment, "unknown CNI_COMMAND: FOO"),
            ("{}".into(), Code::Environment, "required env variables [CNI_COMMAND] missing"),
            ("[]".into(), Code::Decode, "a call must be an object, not an array"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (code, msg));
        }
        let error = code_of(&call("ADD", "0.5.0", ""), Code::IncompatibleVersion);
        assert_eq!(error.msg, "incompatible CNI versions");
        let error = code_of(&call("CHECK", "0.3.1", ""), Code::IncompatibleVersion);
        assert_eq!(error.msg, "config version does not allow CHECK");
    }

    #[test]
    fn status_and_version_need_no_attachment() {
        let status = |more: &str| {
            let config = format!(r#"{{"cniVersion":"1.1.0","name":"n","ipam":{{}}{more}}}"#);
            let body = format!(r#"{{"command":"STATUS","config":{config}}}"#);
            parse(body.as_bytes()).map(|request| request.body)
        };
        // The runtime gives the ranges with an attachment, or an ADD has none either.
        let later = status(r#","capabilities":{"ipRanges":true}"#).unwrap();
        let (sets, requested) = (Vec::new(), Vec::new());
        let none = Status { sets, requested, resolv_conf: None, data_dir: None };
        assert_eq!(later, Body::Status(none));
        for more in ["", r#","capabilities":{"ipRanges":false}"#, r#","capabilities":5"#] {
            assert_eq!(status(more).unwrap_err().msg, "no IP ranges specified", "{more}");
        }
        for (config, said) in
            [("", ""), (r#","config":{}"#, ""), (r#","config":{"cniVersion":"9.9"}"#, "9.9")]
        {
            let body = format!(r#"{{"command":"VERSION"{config}}}"#);
            let request = parse(body.as_bytes()).unwrap();
            assert_eq!(request.body, Body::Version { echo: said.into() });
        }
    }

    #[test]
    fn an_array_is_as_many_calls() {
        let (good, bad) = (call("ADD", "1.0.0", "").body(), r#"{"command":"ADD"}"#);
        let Calls::Many(calls) = split(format!("[{good},{bad},7]").as_bytes(), &Nowhere).unwrap()
        else {
            panic!("not an array");
        };
        assert_eq!(calls.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(split(b"[]", &Nowhere), Ok(Calls::Many(Vec::new())));
        assert!(matches!(split(good.as_bytes(), &Nowhere), Ok(Calls::One(_))));
        let many = format!("[{}]", vec!["0"; CALLS_PER_ARRAY_MAX + 1].join(","));
        let error = split(many.as_bytes(), &Nowhere).unwrap_err();
        assert_eq!(
            (error.code, error.msg.as_str()),
            (Code::Decode, "1025 calls in one request body")
        );
        assert_eq!(parse(b"[]").unwrap_err().code, Code::Decode);
    }
}
