//! CNI calls, and their outcomes as a runtime sees them.

use std::process::Output;

use serde_json::{Map, Value, json};

use super::CNI_PLUGINS;

/// One CNI call, to be made through the plugin or on the socket.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) command: &'static str,
    pub(crate) container: String,
    pub(crate) ifname: String,
    pub(crate) netns: String,
    pub(crate) args: String,
    pub(crate) path: String,
    pub(crate) config: Value,
}

impl Call {
    /// A call for `eth0` of a container, without `CNI_ARGS`.
    pub(crate) fn new(command: &'static str, container: &str, config: &Value) -> Self {
        Self {
            command,
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
            netns: "/run/netns/of-no-importance".to_owned(),
            args: String::new(),
            path: CNI_PLUGINS.to_owned(),
            config: config.clone(),
        }
    }

    /// The variables that carry the call to a plugin.
    pub(crate) fn environment(&self) -> [(&str, &str); 6] {
        [
            ("CNI_COMMAND", self.command),
            ("CNI_CONTAINERID", &self.container),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", &self.ifname),
            ("CNI_ARGS", &self.args),
            ("CNI_PATH", &self.path),
        ]
    }

    /// The same call as the daemon's socket takes it.
    pub(crate) fn body(&self) -> Value {
        json!({
            "command": self.command,
            "containerId": self.container,
            "netns": self.netns,
            "ifname": self.ifname,
            "args": self.args,
            "path": self.path,
            "config": self.config,
        })
    }
}

/// The outcome of a CNI call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Success, with the output, if there was any.
    Done(Option<Value>),
    /// A CNI error object, with a code and a message.
    Refused(Map<String, Value>),
    /// Neither of the two: a crash, or an answer that no runtime could read.
    Broken(String),
}

impl Outcome {
    /// The outcome that a runtime sees in a plugin's end.
    pub(crate) fn of_process(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Self::success(&stdout),
            Some(1) => Self::refusal(&stdout, &stderr),
            _ => Self::Broken(format!("{}: {stdout} {stderr}", output.status)),
        }
    }

    /// The outcome of status 0 with this text on standard output.
    pub(crate) fn success(text: &str) -> Self {
        if text.trim().is_empty() {
            return Self::Done(None);
        }
        match serde_json::from_str(text) {
            Ok(value) => Self::Done(Some(value)),
            Err(error) => Self::Broken(format!("success, but {error} in {text:?}")),
        }
    }

    /// The outcome of a failure with this text on standard output.
    pub(crate) fn refusal(text: &str, context: &str) -> Self {
        let object = serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
        let code = object.get("code").is_some_and(Value::is_u64);
        let message = object.get("msg").and_then(Value::as_str).is_some_and(|msg| !msg.is_empty());
        if code && message {
            Self::Refused(object)
        } else {
            Self::Broken(format!("no CNI error object: {text:?} {context}"))
        }
    }

    /// The error code; `None` for a success.
    pub(crate) fn code(&self) -> Option<u64> {
        match self {
            Self::Refused(object) => object["code"].as_u64(),
            Self::Done(_) | Self::Broken(_) => None,
        }
    }

    /// The error message; empty if there is none.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Refused(object) => object["msg"].as_str().unwrap_or_default(),
            Self::Done(_) | Self::Broken(_) => "",
        }
    }

    /// True if the call succeeded.
    pub(crate) const fn succeeded(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// The result of a call that must succeed.
    pub(crate) fn expect_result(&self) -> &Value {
        match self {
            Self::Done(Some(result)) => result,
            other => panic!("expected a result, got {other:?}"),
        }
    }
}
