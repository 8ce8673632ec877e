//! The envelope of a request: the plugin's environment beside the configuration, all of it still
//! text. `docs/operations.md`, "Look after it", shows one.

use crate::limits::NAME_BYTES_MAX;

use super::error::{Code, Error};
use super::json::Json;
use super::netconf::{IDENTIFIER_RULE, is_identifier};
use super::request::{Id, Verb};

/// The name of the whole text in messages.
const BODY: &str = "request body";

/// The name of the plugin's standard input in messages.
const CONFIG: &str = "network configuration";

/// All keys of a call, in the order of [`Envelope::new`].
const KEYS: [&str; 12] = [
    "command",
    "containerId",
    "netns",
    "ifname",
    "args",
    "path",
    "config",
    "startedAt",
    "waitedSince",
    "undo",
    "resolvConf",
    "resolvConfError",
];

/// The kernel's limit for interface names, less its terminating zero.
const IFNAME_BYTES_MAX: usize = 15;

/// Parses a body.
///
/// The plugin does not parse its standard input: it writes everything else on one line that ends
/// with `"config":`, then its input as it came, then `}` on a line of its own. So the input could
/// close the object early and add keys of its own to the call. This function prevents that: in
/// that form nothing may follow the configuration, and no key may come twice. And it reports a
/// mistake in the input by its place in the input, which is the text that the user wrote.
///
/// # Errors
/// [`Code::Decode`].
pub(super) fn read(body: &[u8]) -> Result<Json<'_>, Error> {
    let Some((_, input)) = plugin_parts(body) else {
        return Json::parse(body, BODY);
    };
    if input.trim_ascii().is_empty() {
        return Err(Error::new(Code::Decode, format!("{CONFIG} is empty"))
            .with_details("a plugin gets its configuration as JSON on standard input"));
    }
    let json = Json::parse(body, BODY);
    if let Ok(Json::Object(pairs)) = &json
        && pairs.last().is_some_and(|(key, _)| key == "config")
    {
        return json;
    }
    Json::parse(input, CONFIG)?;
    json
}

/// A first line that ends with `"config":`, and the text between it and the last bracket.
pub(super) fn plugin_parts(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let newline = body.iter().position(|&byte| byte == b'\n')?;
    let (head, rest) = body.split_at(newline);
    if !head.starts_with(b"{") || !head.trim_ascii_end().ends_with(b"\"config\":") {
        return None;
    }
    let input = rest[1..].trim_ascii_end().strip_suffix(b"}")?;
    Some((head, input.strip_suffix(b"\n").unwrap_or(input)))
}

/// One call. Texts that are absent are empty, as variables are in the CNI library.
pub(super) struct Envelope<'a> {
    pub(super) command: &'a str,
    pub(super) container_id: &'a str,
    pub(super) netns: &'a str,
    pub(super) ifname: &'a str,
    pub(super) args: &'a str,
    pub(super) config: Option<&'a Json<'a>>,
    pub(super) started_at: Option<u64>,
    pub(super) waited_since: Option<u64>,
    pub(super) undo: bool,
    /// The find of the caller at `ipam.resolvConf`: the text of the file, or why there is none.
    pub(super) resolv_conf: Option<Result<&'a str, &'a str>>,
}

impl<'a> Envelope<'a> {
    /// Takes a call apart.
    ///
    /// # Errors
    /// [`Code::Decode`] when the call is not an object, a key is unknown or comes twice, or a value
    /// has the wrong type.
    pub(super) fn new(json: &'a Json<'a>) -> Result<Self, Error> {
        let Json::Object(pairs) = json else {
            return Err(decode(format!("a call must be an object, not {}", json.kind())));
        };
        let mut values: [Option<&Json<'_>>; KEYS.len()] = [None; KEYS.len()];
        for (key, value) in pairs {
            let Some(i) = KEYS.iter().position(|known| known == key) else {
                let error = decode(format!("{BODY} has an unknown key {key:?}"));
                return Err(error.with_details(format!("its keys are {}", KEYS.join(", "))));
            };
            if values[i].replace(value).is_some() {
                return Err(decode(format!("{BODY} has the key {key:?} twice")));
            }
        }
        let [
            command,
            container_id,
            netns,
            ifname,
            args,
            path,
            config,
            started,
            waited,
            undo,
            resolv_conf,
            resolv_conf_error,
        ] = values.map(|value| value.filter(|value| **value != Json::Null));
        let this = Self {
            command: text("command", command)?,
            container_id: text("containerId", container_id)?,
            netns: text("netns", netns)?,
            ifname: text("ifname", ifname)?,
            args: text("args", args)?,
            config,
            started_at: nanoseconds("startedAt", started)?,
            waited_since: nanoseconds("waitedSince", waited)?,
            undo: match undo {
                None => false,
                Some(Json::Bool(undo)) => *undo,
                Some(other) => return Err(wrong_type("undo", "a boolean", other)),
            },
            resolv_conf: match (resolv_conf, resolv_conf_error) {
                (None, None) => None,
                (text_of, None) => Some(Ok(text("resolvConf", text_of)?)),
                (_, error) => Some(Err(text("resolvConfError", error)?)),
            },
        };
        // The plugin checks CNI_PATH, for which the daemon has no use.
        text("path", path)?;
        if this.undo && (this.command != Verb::Del.as_str() || this.started_at.is_none()) {
            return Err(decode("undo is allowed only with the command DEL and with startedAt"));
        }
        Ok(this)
    }

    /// The attachment that the call is about; empty for commands without an attachment.
    ///
    /// # Errors
    /// [`Code::Environment`], by the rules and in the words of the CNI library's dispatcher
    /// (`pkg/skel`): a bad value first, then all that are missing.
    pub(super) fn id(&self, verb: Option<Verb>) -> Result<Id, Error> {
        let attachment = matches!(verb, Some(Verb::Add | Verb::Check | Verb::Del));
        let netns = matches!(verb, Some(Verb::Add | Verb::Check));
        let mut missing = Vec::new();
        for (variable, value, required) in [
            ("CNI_COMMAND", self.command, true),
            ("CNI_CONTAINERID", self.container_id, attachment),
            ("CNI_NETNS", self.netns, netns),
            ("CNI_IFNAME", self.ifname, attachment),
        ] {
            if required && value.is_empty() {
                missing.push(variable);
            } else if required {
                check_variable(variable, value)?;
            }
        }
        if !missing.is_empty() {
            let msg = format!("required env variables [{}] missing", missing.join(","));
            return Err(Error::new(Code::Environment, msg).with_details(
                "in a request body they are command, containerId, netns and ifname",
            ));
        }
        Ok(Id { container_id: self.container_id.into(), ifname: self.ifname.into() })
    }
}

fn check_variable(variable: &str, value: &str) -> Result<(), Error> {
    let long: String;
    let (msg, rule) = match variable {
        "CNI_CONTAINERID" if !is_identifier(value) => {
            ("invalid characters in containerID", IDENTIFIER_RULE)
        }
        "CNI_CONTAINERID" if value.len() > NAME_BYTES_MAX => {
            long = format!("at most {NAME_BYTES_MAX} bytes are allowed");
            ("containerID is too long", &*long)
        }
        "CNI_IFNAME" if value.len() > IFNAME_BYTES_MAX => {
            ("interface name is too long", "interface name should be less than 16 characters")
        }
        "CNI_IFNAME" if value == "." || value == ".." => {
            ("interface name is . or ..", "the kernel does not allow that")
        }
        "CNI_IFNAME" if value.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) => (
            "interface name contains / or : or whitespace characters",
            "the kernel does not allow that",
        ),
        _ => return Ok(()),
    };
    let details = format!("{variable} is {value:?}: {rule}");
    Err(Error::new(Code::Environment, msg).with_details(details))
}

fn text<'a>(key: &str, value: Option<&'a Json<'a>>) -> Result<&'a str, Error> {
    match value {
        None => Ok(""),
        Some(Json::String(text)) => Ok(text),
        Some(other) => Err(wrong_type(key, "a string", other)),
    }
}

fn nanoseconds(key: &str, value: Option<&Json<'_>>) -> Result<Option<u64>, Error> {
    match value {
        None => Ok(None),
        Some(Json::Unsigned(time)) => Ok(Some(*time)),
        Some(_) => Err(decode(format!("{key} must be a number of nanoseconds"))),
    }
}

fn wrong_type(key: &str, right: &str, value: &Json<'_>) -> Error {
    decode(format!("{key} must be {right}, not {}", value.kind()))
}

fn decode(msg: impl Into<String>) -> Error {
    Error::new(Code::Decode, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(input: &str) -> String {
        format!("{{\"command\":\"ADD\",\"startedAt\":7,\"config\":\n{input}\n}}")
    }

    fn refused(body: &str) -> Error {
        let json = read(body.as_bytes());
        let error = json.and_then(|json| Envelope::new(&json).map(|_| ())).unwrap_err();
        assert_eq!(error.code, Code::Decode, "{body}");
        error
    }

    #[test]
    fn the_input_cannot_add_keys_to_the_call() {
        let trailing = "network configuration is not valid JSON at line 1 column 3: \
                        trailing characters";
        for input in [
            r#"{},"command":"DEL""#,
            r#"{},"undo":true"#,
            r#"{},"x":1"#,
            r#"{}},{"command":"DEL""#,
            "{}}",
        ] {
            assert_eq!(refused(&spliced(input)).msg, trailing, "{input}");
        }
        // The refusal of repeated keys closes the one way that is left.
        let error = refused(&spliced(r#"{},"config":{}"#));
        assert_eq!(error.msg, "request body has the key \"config\" twice");
        assert!(read(spliced(" {} \n").as_bytes()).is_ok());
    }

    #[test]
    fn a_slip_in_the_input_is_found_where_the_user_wrote_it() {
        assert_eq!(
            refused(&spliced("{\n  \"name\": x\n}")).msg,
            "network configuration is not valid JSON at line 2 column 11: expected value"
        );
        assert_eq!(
            refused(&spliced("{\"a\": 1")).msg,
            "network configuration is not valid JSON at line 1 column 7: \
             EOF while parsing an object"
        );
        assert_eq!(
            refused("{\"command\":}").msg,
            "request body is not valid JSON at line 1 column 12: expected value"
        );
        assert!(refused("{\"command\":,\"config\":\n{}\n}").msg.starts_with("request body is not"));
        for empty in ["", " \n\t\n"] {
            assert_eq!(refused(&spliced(empty)).msg, "network configuration is empty");
        }
        assert!(refused("").msg.starts_with("request body is not valid JSON at line 1 column 0"));
    }

    #[test]
    fn keys_are_known_come_once_and_have_their_type() {
        for (body, msg) in [
            ("5", "a call must be an object, not a number"),
            (r#"{"undo":false,"Command":"ADD"}"#, "request body has an unknown key \"Command\""),
            (r#"{"path":"","path":""}"#, "request body has the key \"path\" twice"),
            (r#"{"netns":5}"#, "netns must be a string, not a number"),
            (r#"{"path":[]}"#, "path must be a string, not an array"),
            (r#"{"undo":"yes"}"#, "undo must be a boolean, not a string"),
            (r#"{"waitedSince":"now"}"#, "waitedSince must be a number of nanoseconds"),
            (r#"{"startedAt":-1}"#, "startedAt must be a number of nanoseconds"),
            (r#"{"startedAt":1.5}"#, "startedAt must be a number of nanoseconds"),
            (
                r#"{"command":"ADD","startedAt":1,"undo":true}"#,
                "undo is allowed only with the command DEL and with startedAt",
            ),
            (
                r#"{"command":"DEL","undo":true}"#,
                "undo is allowed only with the command DEL and with startedAt",
            ),
        ] {
            assert_eq!(refused(body).msg, msg);
        }
    }

    fn id(verb: Option<Verb>, [container_id, netns, ifname]: [&str; 3]) -> Result<Id, Error> {
        let (command, args, config) = (verb.map_or("", Verb::as_str), "", None);
        let (started_at, waited_since, undo) = (None, None, false);
        let envelope = Envelope {
            command,
            container_id,
            netns,
            ifname,
            args,
            config,
            started_at,
            waited_since,
            undo,
            resolv_conf: None,
        };
        envelope.id(verb)
    }

    #[test]
    fn what_is_missing_is_listed_in_order() {
        for (verb, values, missing) in [
            (None, ["", "", ""], "CNI_COMMAND"),
            (Some(Verb::Add), ["", "", ""], "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME"),
            (Some(Verb::Check), ["a", "", "eth0"], "CNI_NETNS"),
            (Some(Verb::Del), ["", "", ""], "CNI_CONTAINERID,CNI_IFNAME"),
        ] {
            let error = id(verb, values).unwrap_err();
            assert_eq!(error.code, Code::Environment);
            assert_eq!(error.msg, format!("required env variables [{missing}] missing"));
        }
        assert!(id(Some(Verb::Del), ["a", "", "eth0"]).is_ok());
        for verb in [Verb::Gc, Verb::Status, Verb::Version] {
            assert!(id(Some(verb), ["/", "", "/"]).is_ok());
        }
    }

    #[test]
    fn a_bad_value_comes_before_a_missing_one() {
        let long = "x".repeat(256);
        for (container_id, ifname, msg) in [
            ("a/b", "", "invalid characters in containerID"),
            ("-a", "eth0", "invalid characters in containerID"),
            ("ä", "eth0", "invalid characters in containerID"),
            (&*long, "eth0", "containerID is too long"),
            ("", "sixteen-bytes-if", "interface name is too long"),
            ("a", ".", "interface name is . or .."),
            ("a", "..", "interface name is . or .."),
            ("a", "a/b", "interface name contains / or : or whitespace characters"),
            ("a", "a:b", "interface name contains / or : or whitespace characters"),
            ("a", "a\u{2003}b", "interface name contains / or : or whitespace characters"),
        ] {
            let error = id(Some(Verb::Add), [container_id, "", ifname]).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (Code::Environment, msg));
        }
        let error = id(Some(Verb::Del), ["a/b", "", "eth0"]).unwrap_err();
        assert_eq!(
            error.details,
            "CNI_CONTAINERID is \"a/b\": a letter or digit, then letters, digits, '_', '.' and \
             '-' are allowed"
        );
        assert!(id(Some(Verb::Add), ["A_.-9", "/x", "fifteen-bytes-i"]).is_ok());
    }
}
