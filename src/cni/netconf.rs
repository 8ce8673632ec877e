//! The content of a network configuration, for each command: its name, the requested addresses,
//! routes and the stage. `range_set_parser.rs` reads the range sets, `prev_result.rs` the result
//! that a CHECK compares with, and `gc.rs` the list that a GC compares with.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::core::range::Ranges;
use crate::core::stage::Stage;
use crate::limits::{DAEMON_WAIT_MAX, NAME_BYTES_MAX, REQUESTED_MAX, ROUTES_MAX};

use super::args::{Args, stages};
use super::error::{Code, Error};
use super::ip;
use super::json::Json;
use super::json_cursor::JsonCursor;
use super::namespaces::Namespaces;
use super::prev_result::prev_ips;
use super::range_set_parser::RangeSetParser;
use super::request::{Add, Check, Id, Pod, Status};
use super::resolv::ResolvConf;
use super::result::Route;
use super::unknown::unknown;
use super::version::Version;

/// Keys of `ipam` that must be strings if they are there. The daemon uses `network`, `networkFrom`
/// and `dataDir`. The plugin reads `socket` and `resolvConf`, the runtime reads `type`.
const IPAM_STRINGS: [&str; 7] =
    ["type", "name", "dataDir", "socket", "network", "networkFrom", "resolvConf"];

/// A network configuration, which must be an object.
///
/// # Errors
/// [`Code::Decode`].
pub(super) fn root<'a>(json: &'a Json<'a>) -> Result<JsonCursor<'a>, Error> {
    match json {
        Json::Object(_) => Ok(JsonCursor::root(json)),
        _ => {
            let msg = format!("network configuration must be an object, not {}", json.kind());
            Err(Error::new(Code::Decode, msg))
        }
    }
}

/// The network's name, checked as the CNI library does (`pkg/utils`).
///
/// # Errors
/// [`Code::Config`].
pub(super) fn name<'a>(root: &'a JsonCursor<'_>) -> Result<&'a str, Error> {
    let name = root.string("name")?.unwrap_or_default();
    if name.is_empty() {
        return Err(Error::new(Code::Config, "missing network name")
            .with_details("the configuration must have a \"name\""));
    }
    let refuse = |msg: &str, rule: &str| {
        let details = format!("name is {name:?}: {rule}");
        Err(Error::new(Code::Config, msg).with_details(details))
    };
    if !is_identifier(name) {
        return refuse("invalid characters found in network name", IDENTIFIER_RULE);
    }
    if name.len() > NAME_BYTES_MAX {
        let rule = format!("at most {NAME_BYTES_MAX} bytes are allowed");
        return refuse("network name is too long", &rule);
    }
    Ok(name)
}

/// The rule of [`is_identifier`], for messages.
pub(super) const IDENTIFIER_RULE: &str =
    "a letter or digit, then letters, digits, '_', '.' and '-' are allowed";

/// True if a text may be a container id or a network name (CNI specification 1.1, section 2:
/// `[a-zA-Z0-9][a-zA-Z0-9_.\-]*`).
pub(super) fn is_identifier(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(inner)
}

/// The parts of a call beside its configuration.
pub(super) struct Surroundings<'a> {
    /// The attachment; empty for a STATUS.
    pub(super) id: Id,
    /// `CNI_ARGS`.
    pub(super) args: &'a str,
    /// The find of the caller at `ipam.resolvConf`: the text of the file, or why there is none.
    pub(super) resolv_conf: Option<Result<&'a str, &'a str>>,
}

/// Reads the request of an ADD. `raw_version` is `cniVersion` as written.
///
/// # Errors
/// [`Code::Config`], and [`Code::Environment`] for `CNI_ARGS`.
pub(super) fn add(
    root: &JsonCursor<'_>,
    versions: (Version, &str),
    call: Surroundings<'_>,
) -> Result<Add, Error> {
    let (add, pod_namespace) = plain_add(root, versions, call)?;
    let add = Add { sets: some(add.sets)?, ..add };
    Namespaces::read(&ipam(root)?)?.admit(pod_namespace.as_deref(), add.stage)?;
    Ok(add)
}

/// Reads an ADD as far as it does not depend on the pod: there may be no ranges, and whether the
/// pod's namespace may have an address is not judged. Returns that namespace too.
fn plain_add(
    root: &JsonCursor<'_>,
    (version, raw_version): (Version, &str),
    call: Surroundings<'_>,
) -> Result<(Add, Option<String>), Error> {
    let ipam = ipam(root)?;
    let runtime = root.object("runtimeConfig")?;
    let env = Args::parse(call.args)?;
    let args = root.object("args")?;
    let args = match &args {
        Some(args) => args.object("cni")?,
        None => None,
    };
    let mut requested: Vec<_> = env.ip.into_iter().collect();
    for source in [&args, &runtime].into_iter().flatten() {
        add_requested(&mut requested, source)?;
    }
    let pod = env.pod_name.map(|name| Pod {
        namespace: env.pod_namespace.unwrap_or_default().into(),
        name: name.into(),
    });
    let routes = routes(&ipam)?;
    let resolv_conf = ipam.string("resolvConf")?;
    let resolv_conf = resolv_conf.filter(|path| !path.is_empty()).map(|path| ResolvConf {
        path: path.into(),
        content: call.resolv_conf.map(|found| found.map(str::to_owned).map_err(str::to_owned)),
    });
    let sets = RangeSetParser::read(&ipam, runtime.as_ref(), version, raw_version)?;
    // A word gives a stage only if some range lists a stage. Elsewhere it is a word of somebody
    // else's tool, and a pod's name is just a name.
    let mut ranges = sets.iter().flat_map(|set| set.iter());
    let staged = ranges.any(|range| Stage::ALL.iter().any(|&of| !range.listed(of).is_empty()));
    let stage = match args.as_ref().filter(|_| staged) {
        Some(args) => args_stage(args)?,
        None => None,
    };
    let env_stage = if staged { env.stage()? } else { None };
    let of_pod = || env.pod_name.filter(|_| staged).and_then(Stage::of_pod);
    let stage = stage.or(env_stage).or_else(of_pod);
    Namespaces::read(&ipam)?;
    let unknown = unknown(&ipam);
    let data_dir = data_dir(root)?;
    let id = call.id;
    let add = Add { id, sets, requested, stage, pod, routes, resolv_conf, data_dir, unknown };
    Ok((add, env.pod_namespace.map(str::to_owned)))
}

/// Reads the request of a CHECK.
///
/// # Errors
/// [`Code::Config`].
pub(super) fn check(
    root: &JsonCursor<'_>,
    id: Id,
    (version, raw_version): (Version, &str),
) -> Result<Check, Error> {
    let ipam = ipam(root)?;
    let runtime = root.object("runtimeConfig")?;
    let sets = some(RangeSetParser::read(&ipam, runtime.as_ref(), version, raw_version)?)?;
    let prev_ips = prev_ips(root)?;
    Ok(Check { id, sets, prev_ips })
}

/// Reads the request of a STATUS, as an ADD of a pod that is not known. There may be no ranges if
/// they come with attachments: their absence must not make a node look broken.
///
/// # Errors
/// As of [`add`].
pub(super) fn status(
    root: &JsonCursor<'_>,
    versions: (Version, &str),
    call: Surroundings<'_>,
) -> Result<Status, Error> {
    let (Add { sets, requested, resolv_conf, data_dir, .. }, _) = plain_add(root, versions, call)?;
    let sets = if ranges_come_later(root)? { sets } else { some(sets)? };
    Ok(Status { sets, requested, resolv_conf, data_dir })
}

/// Returns whether the ranges come with each attachment: from the runtime, or of the network that
/// the pod's name tells.
fn ranges_come_later(root: &JsonCursor<'_>) -> Result<bool, Error> {
    let ipam = ipam(root)?;
    let named = ipam.string("network")?.is_some_and(|network| !network.is_empty());
    let of_service = !named && ipam.string("networkFrom")? == Some("service");
    Ok(of_service || runtime_gives_ranges(root))
}

/// Returns whether the runtime is asked for ranges, which it gives with an attachment.
pub(super) fn runtime_gives_ranges(root: &JsonCursor<'_>) -> bool {
    let capabilities = root.get("capabilities");
    capabilities.is_some_and(|all| all.get("ipRanges").is_some_and(|asked| asked.is_true()))
}

/// The range sets of a configuration that is good for an ADD without a runtime.
///
/// # Errors
/// [`Code::Config`].
pub(super) fn ranges_and_routes(root: &JsonCursor<'_>) -> Result<Vec<Ranges>, Error> {
    let newest = Version::NEWEST;
    let id = Id { container_id: "".into(), ifname: "".into() };
    let call = Surroundings { id, args: "", resolv_conf: None };
    let (add, _) = plain_add(root, (newest, newest.as_str()), call)?;
    some(add.sets)
}

/// The directory of host-local's directories, if the configuration names one.
///
/// # Errors
/// [`Code::Config`]: it is no text, or there is no good `ipam`.
pub(super) fn data_dir(root: &JsonCursor<'_>) -> Result<Option<PathBuf>, Error> {
    let Some(ipam) = root.object("ipam")? else { return Ok(None) };
    let path = ipam.string("dataDir")?;
    Ok(path.filter(|path| !path.is_empty()).map(PathBuf::from))
}

fn ipam<'a>(root: &'a JsonCursor<'_>) -> Result<JsonCursor<'a>, Error> {
    let Some(ipam) = root.object("ipam")? else {
        return Err(Error::new(Code::Config, "IPAM config missing 'ipam' key")
            .with_details("ipam must be an object with the ranges to allocate from"));
    };
    for key in IPAM_STRINGS {
        ipam.string(key)?;
    }
    // The plugin reads it too, and takes its own default for what is wrong.
    let max = DAEMON_WAIT_MAX.as_secs();
    let wait = ipam.integer("waitSeconds")?;
    if wait.is_some_and(|seconds| !u64::try_from(seconds).is_ok_and(|s| s <= max)) {
        let what = format!("must be from 0 to {max} seconds");
        return Err(ipam
            .get("waitSeconds")
            .map_or_else(|| ipam.refuse(&what), |w| w.refuse(&what)));
    }
    Ok(ipam)
}

fn some(sets: Vec<Ranges>) -> Result<Vec<Ranges>, Error> {
    if sets.is_empty() {
        return Err(Error::new(Code::Config, "no IP ranges specified").with_details(
            "ipam.ranges must have a range set, such as [[{\"subnet\": \"10.1.2.0/24\"}]]; or keep \
             the network's ipam object centrally: leasehold network put NAME FILE",
        ));
    }
    Ok(sets)
}

/// Adds the addresses in `ips` of `args.cni` or `runtimeConfig` to the requested addresses.
fn add_requested(requested: &mut Vec<IpAddr>, source: &JsonCursor<'_>) -> Result<(), Error> {
    let Some(ips) = source.items("ips", REQUESTED_MAX)? else {
        return Ok(());
    };
    for item in ips.iter() {
        let text = item.text()?;
        let advice = "must be an address, with or without a prefix length";
        if text.is_empty() {
            return Err(item.blame("cannot understand ip: IP <nil> not v4 nor v6", advice));
        }
        let Some(address) = ip::requested(text) else {
            return Err(item.blame(format!("invalid IP address {text}"), advice));
        };
        if requested.contains(&address) {
            continue;
        }
        if requested.len() == REQUESTED_MAX {
            let what = "brings the number of requested addresses to more than the";
            let array = &ips.array;
            return Err(array.refuse(format_args!("{what} {REQUESTED_MAX} that are allowed")));
        }
        requested.push(address);
    }
    Ok(())
}

fn args_stage(args: &JsonCursor<'_>) -> Result<Option<Stage>, Error> {
    let Some(word) = args.string("stage")?.filter(|word| !word.is_empty()) else {
        return Ok(None);
    };
    let stage = Stage::parse(word);
    stage.map(Some).ok_or_else(|| {
        let msg = format!("args.cni.stage must be {}, not {word:?}", stages());
        Error::new(Code::Config, msg)
    })
}

fn routes(ipam: &JsonCursor<'_>) -> Result<Vec<Route>, Error> {
    let Some(items) = ipam.items("routes", ROUTES_MAX)? else {
        return Ok(Vec::new());
    };
    let mut routes = Vec::with_capacity(items.len());
    for item in items.iter() {
        let item = item.an_object()?;
        routes.push(Route {
            dst: destination(&item)?,
            gw: item.address("gw")?,
            mtu: item.integer("mtu")?.unwrap_or_default(),
            advmss: item.integer("advmss")?.unwrap_or_default(),
            priority: item.integer("priority")?.unwrap_or_default(),
            table: item.integer("table")?,
            scope: item.integer("scope")?,
        });
    }
    Ok(routes)
}

/// `dst` of a route. host-local takes a route without one and prints `<nil>`, which no plugin that
/// calls it can read. Here the lack of a `dst` is an error.
fn destination(route: &JsonCursor<'_>) -> Result<IpNet, Error> {
    let Some(dst) = route.get("dst") else {
        return Err(route.refuse("has no dst"));
    };
    dst.cidr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::vectors::{Call, add, code_of, with_ipam};

    const RANGE: &str = r#""ranges":[[{"subnet":"10.1.2.0/24"}]]"#;

    fn with(more: &str) -> Call {
        let call = with_ipam(&format!("{{{RANGE}}}"));
        Call { more: format!(",{more}"), ..call }
    }

    #[test]
    fn what_is_asked_for_is_added_up_each_once() {
        let call = Call {
            args: "IP=10.1.2.9/24;K8S_POD_NAME=p".into(),
            ..with(
                r#""args":{"cni":{"ips":["10.1.2.11/24","2001:DB8::1","10.1.2.9"]}},
                "runtimeConfig":{"ips":["2001:db8::1/64","::ffff:10.1.2.12"],"mac":5}"#,
            )
        };
        let requested: Vec<_> =
            add(&call).unwrap().requested.iter().map(IpAddr::to_string).collect();
        assert_eq!(requested, ["10.1.2.9", "10.1.2.11", "2001:db8::1", "10.1.2.12"]);
        for (more, msg) in [
            (r#""args":{"cni":{"ips":[""]}}"#, "cannot understand ip: IP <nil> not v4 nor v6"),
            (r#""args":{"cni":{"ips":["foo"]}}"#, "invalid IP address foo"),
            (r#""args":{"CNI":{"IPs":[null]}}"#, "args.cni.ips[0] must be a string, not null"),
            (r#""runtimeConfig":{"ips":"x"}"#, "runtimeConfig.ips must be an array, not a string"),
            (r#""runtimeConfig":[]"#, "runtimeConfig must be an object, not an array"),
            (r#""args":{"cni":5}"#, "args.cni must be an object, not a number"),
        ] {
            assert_eq!(code_of(&with(more), Code::Config).msg, msg);
        }
        let many = |from, n| {
            (from..from + n).map(|i| format!("\"10.1.2.{i}\"")).collect::<Vec<_>>().join(",")
        };
        let (a, b) = (many(2, 40), many(100, 25));
        let call =
            with(&format!(r#""args":{{"cni":{{"ips":[{a}]}}}},"runtimeConfig":{{"ips":[{b}]}}"#));
        assert!(code_of(&call, Code::Config).msg.starts_with("runtimeConfig.ips brings the"));
    }

    #[test]
    fn the_stage_comes_from_the_nearest_word() {
        let stage = |more: &str, args: &str| {
            let range = r#""subnet":"10.1.2.0/24","sandbox":["10.1.2.50"]"#;
            let call = with_ipam(&format!(r#"{{"type":"my-ipam","ranges":[[{{{range}}}]]}}"#));
            add(&Call { args: args.into(), more: format!(",{more}"), ..call }).unwrap().stage
        };
        let (none, pod) = (r#""args":{"cni":{}}"#, "K8S_POD_NAME=web-2-sandbox-0");
        assert_eq!(stage(none, pod), Some(Stage::Sandbox));
        assert_eq!(stage(none, &format!("{pod};STAGE=smallflow")), Some(Stage::Smallflow));
        let word = r#""args":{"cni":{"stage":"sandbox"}}"#;
        assert_eq!(stage(word, "STAGE=smallflow"), Some(Stage::Sandbox));
        assert_eq!(stage(none, "K8S_POD_NAME=mysql-0"), None);
        // Where no stage is listed, a name is just a name, as for host-local.
        let plain = Call { args: pod.into(), ..with(none) };
        assert_eq!(add(&plain).unwrap().stage, None);
        // A word of another tool is no stage either.
        for word in ["online", "sandbox"] {
            let word = format!(r#""args":{{"cni":{{"stage":"{word}"}}}}"#);
            assert_eq!(add(&with(&word)).unwrap().stage, None);
        }
        let elsewhere = Call { args: "STAGE=online".into(), ..with(none) };
        assert_eq!(add(&elsewhere).unwrap().stage, None);
        let staged = |more: &str| {
            let range = r#""subnet":"10.1.2.0/24","sandbox":["10.1.2.50"]"#;
            let call = with_ipam(&format!(r#"{{"type":"my-ipam","ranges":[[{{{range}}}]]}}"#));
            Call { more: format!(",{more}"), ..call }
        };
        let error = code_of(&staged(r#""args":{"cni":{"stage":"online"}}"#), Code::Config);
        assert_eq!(error.msg, "args.cni.stage must be sandbox or smallflow, not \"online\"");
        let bad = Call { args: "STAGE=online".into(), ..staged(none) };
        assert_eq!(
            code_of(&bad, Code::Environment).details,
            "STAGE in CNI_ARGS must be sandbox or smallflow"
        );
    }

    #[test]
    fn routes_are_read_whole() {
        let routes = |routes: &str| {
            let call = with_ipam(&format!(r#"{{{RANGE},"routes":[{routes}]}}"#));
            add(&call).map(|add| add.routes)
        };
        let read = routes(
            r#"{"dst":"10.5.0.7/16","GW":"10.1.2.254","mtu":1400,"table":0},
            {"dst":"::/0","gw":"","advmss":1300,"priority":-1,"scope":253}"#,
        )
        .unwrap();
        let plain = |dst: &str| {
            let dst = dst.parse().unwrap();
            Route { dst, gw: None, mtu: 0, advmss: 0, priority: 0, table: None, scope: None }
        };
        let gw = Some([10, 1, 2, 254].into());
        assert_eq!(read[0], Route { gw, mtu: 1400, table: Some(0), ..plain("10.5.0.7/16") });
        let scope = Some(253);
        assert_eq!(read[1], Route { advmss: 1300, priority: -1, scope, ..plain("::/0") });
        for (route, msg) in [
            ("{}", "ipam.routes[0] has no dst"),
            ("null", "ipam.routes[0] must be an object, not null"),
            (r#"{"dst":"0.0.0.0"}"#, "invalid CIDR address: 0.0.0.0"),
            (r#"{"dst":"::/0","gw":"x"}"#, "invalid IP address: x"),
            (
                r#"{"dst":"::/0","mtu":"1"}"#,
                "ipam.routes[0].mtu must be a whole number, not a string",
            ),
        ] {
            assert_eq!(routes(route).unwrap_err().msg, msg);
        }
    }

    #[test]
    fn the_rest_of_ipam_has_its_types() {
        let ok = with_ipam(&format!(
            r#"{{{RANGE},"type":"my-ipam","dataDir":"/x","resolvConf":"/etc/resolv.conf","zz":[]}}"#
        ));
        let resolv_conf = add(&ok).unwrap().resolv_conf.unwrap();
        assert_eq!((resolv_conf.path, resolv_conf.content), ("/etc/resolv.conf".into(), None));
        for key in IPAM_STRINGS {
            let call = with_ipam(&format!(r#"{{{RANGE},"{key}":{{}}}}"#));
            let msg = format!("ipam.{key} must be a string, not an object");
            assert_eq!(code_of(&call, Code::Config).msg, msg);
        }
        for (ipam, msg) in [
            ("null", "IPAM config missing 'ipam' key"),
            ("5", "ipam must be an object, not a number"),
            ("{}", "no IP ranges specified"),
            (r#"{"rangeStart":"10.0.0.1"}"#, "no IP ranges specified"),
        ] {
            assert_eq!(code_of(&with_ipam(ipam), Code::Config).msg, msg);
        }
    }
}
