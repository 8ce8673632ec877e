//! `CNI_ARGS`: the grammar of the CNI library (`pkg/types/args.go`) and the keys that count here.

use std::net::IpAddr;

use crate::core::stage::Stage;
use crate::limits::NAME_BYTES_MAX;

use super::error::{Code, Error};
use super::ip;

/// The content of one `CNI_ARGS`. If a key comes twice, the last one counts.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Args<'a> {
    /// `IP`: one address, a prefix length is dropped.
    pub(super) ip: Option<IpAddr>,
    /// `STAGE`: the pair and its value, which is not empty. It may be a word of somebody else's.
    stage: Option<(&'a str, &'a str)>,
    /// `K8S_POD_NAME`; never empty.
    pub(super) pod_name: Option<&'a str>,
    /// `K8S_POD_NAMESPACE`; never empty.
    pub(super) pod_namespace: Option<&'a str>,
}

impl<'a> Args<'a> {
    /// Parses pairs `key=value`, separated by semicolons. The empty text has no pairs.
    ///
    /// # Errors
    /// [`Code::Environment`], in host-local's words: a piece that is not a pair, a value that does
    /// not fit its key, or a key that is not known, unless `IgnoreUnknown` allows that.
    pub(super) fn parse(text: &'a str) -> Result<Self, Error> {
        let mut args = Self::default();
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        if text.is_empty() {
            return Ok(args);
        }
        for pair in text.split(';') {
            let parts = pair.split_once('=').filter(|(_, value)| !value.contains('='));
            let Some((key, value)) = parts else {
                return Err(environment(format!("invalid pair {pair:?}"))
                    .with_details("CNI_ARGS must read KEY=VALUE;KEY=VALUE"));
            };
            match key {
                "IgnoreUnknown" => ignore_unknown = boolean(pair, value)?,
                "IP" => args.ip = address(pair, value)?,
                "STAGE" => args.stage = Some((pair, value)).filter(|_| !value.is_empty()),
                "K8S_POD_NAME" => args.pod_name = name(pair, value)?,
                "K8S_POD_NAMESPACE" => args.pod_namespace = name(pair, value)?,
                _ => unknown.push(pair),
            }
        }
        if ignore_unknown || unknown.is_empty() {
            return Ok(args);
        }
        let quoted: Vec<_> = unknown.iter().map(|pair| format!("{pair:?}")).collect();
        Err(environment(format!("unknown args [{}]", quoted.join(" "))).with_details(
            "the known keys of CNI_ARGS are IP, STAGE, K8S_POD_NAME and K8S_POD_NAMESPACE; \
             IgnoreUnknown=1 allows others",
        ))
    }
}

impl Args<'_> {
    /// Returns the stage that `STAGE` names.
    ///
    /// # Errors
    /// [`Code::Environment`]: it is no stage.
    pub(super) fn stage(&self) -> Result<Option<Stage>, Error> {
        let Some((pair, value)) = self.stage else { return Ok(None) };
        Stage::parse(value).map(Some).ok_or_else(|| {
            bad(pair, &format!("unknown stage {value}"))
                .with_details(format!("STAGE in CNI_ARGS must be {}", stages()))
        })
    }
}

fn environment(what: String) -> Error {
    Error::new(Code::Environment, format!("ARGS: {what}"))
}

fn bad(pair: &str, why: &str) -> Error {
    environment(format!("error parsing value of pair {pair:?}: {why}"))
}

fn boolean(pair: &str, value: &str) -> Result<bool, Error> {
    let is = |word: &str| value.eq_ignore_ascii_case(word);
    if is("1") || is("true") {
        return Ok(true);
    }
    if is("0") || is("false") {
        return Ok(false);
    }
    let why = format!("boolean unmarshal error: invalid input {value}");
    Err(bad(pair, &why).with_details("IgnoreUnknown in CNI_ARGS must be 1, true, 0 or false"))
}

fn address(pair: &str, value: &str) -> Result<Option<IpAddr>, Error> {
    if value.is_empty() {
        return Ok(None);
    }
    let address = ip::requested(value);
    address.map(Some).ok_or_else(|| {
        bad(pair, &format!("invalid IP address {value}")).with_details(
            "IP in CNI_ARGS must be one address, with or without a prefix length; for more than \
             one use args.cni.ips or runtimeConfig.ips",
        )
    })
}

fn name<'a>(pair: &str, value: &'a str) -> Result<Option<&'a str>, Error> {
    if value.len() > NAME_BYTES_MAX {
        let why = format!("longer than {NAME_BYTES_MAX} bytes");
        return Err(bad(pair, &why));
    }
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// The words for stages, for messages: `sandbox or smallflow`.
pub(super) fn stages() -> String {
    Stage::ALL.map(Stage::as_str).join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msg(text: &str) -> String {
        let error = Args::parse(text).unwrap_err();
        assert_eq!(error.code, Code::Environment, "{text}");
        error.msg
    }

    #[test]
    fn what_runtimes_send_is_understood() {
        let text = "K8S_POD_INFRA_CONTAINER_ID=abc;IgnoreUnknown=1;K8S_POD_NAME=web-2-sandbox-0;\
                    K8S_POD_NAMESPACE=shop;K8S_POD_UID=1-2;IP=10.1.2.10/24";
        let args = Args::parse(text).unwrap();
        assert_eq!(args.ip, Some([10, 1, 2, 10].into()));
        assert_eq!((args.pod_name, args.pod_namespace), (Some("web-2-sandbox-0"), Some("shop")));
        assert_eq!(args.stage(), Ok(None));
        assert_eq!(Args::parse(""), Ok(Args::default()));
    }

    #[test]
    fn keys_of_ours_are_known_without_ignore_unknown() {
        let args = Args::parse("K8S_POD_NAME=a;K8S_POD_NAMESPACE=b;STAGE=smallflow").unwrap();
        assert_eq!(args.stage(), Ok(Some(Stage::Smallflow)));
        assert_eq!(args.pod_name, Some("a"));
        assert_eq!(Args::parse("IP=;STAGE=;K8S_POD_NAME="), Ok(Args::default()));
        let last = Args::parse("IP=10.0.0.1;IP=10.0.0.2").unwrap();
        assert_eq!(last.ip, Some([10, 0, 0, 2].into()));
    }

    #[test]
    fn a_piece_has_exactly_one_equals_sign() {
        assert_eq!(msg("IP=10.0.0.1;"), "ARGS: invalid pair \"\"");
        assert_eq!(msg("IP"), "ARGS: invalid pair \"IP\"");
        assert_eq!(msg("A=b=c;IgnoreUnknown=1"), "ARGS: invalid pair \"A=b=c\"");
    }

    #[test]
    fn unknown_keys_need_leave() {
        assert_eq!(msg("K=V;K2=V2"), "ARGS: unknown args [\"K=V\" \"K2=V2\"]");
        assert_eq!(msg("ip=10.0.0.1"), "ARGS: unknown args [\"ip=10.0.0.1\"]");
        assert_eq!(msg("K=V;IgnoreUnknown=0"), "ARGS: unknown args [\"K=V\"]");
        for leave in ["1", "true", "TRUE"] {
            let text = format!("K=V;IgnoreUnknown={leave};K2=V2");
            assert_eq!(Args::parse(&text), Ok(Args::default()));
        }
    }

    #[test]
    fn a_value_that_does_not_fit_names_its_pair() {
        assert_eq!(
            msg("IgnoreUnknown=yes"),
            "ARGS: error parsing value of pair \"IgnoreUnknown=yes\": \
             boolean unmarshal error: invalid input yes"
        );
        assert_eq!(
            msg("IP=foo"),
            "ARGS: error parsing value of pair \"IP=foo\": invalid IP address foo"
        );
        assert!(msg("IP=10.0.0.1,10.0.0.2").ends_with("invalid IP address 10.0.0.1,10.0.0.2"));
        let error = Args::parse("STAGE=Sandbox").unwrap().stage().unwrap_err();
        assert_eq!(
            error.msg,
            "ARGS: error parsing value of pair \"STAGE=Sandbox\": unknown stage Sandbox"
        );
        assert_eq!(error.details, "STAGE in CNI_ARGS must be sandbox or smallflow");
        let long = format!("K8S_POD_NAME={}", "x".repeat(256));
        assert!(msg(&long).ends_with("longer than 255 bytes"));
    }
}
