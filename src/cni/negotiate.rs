//! The version of the specification for a command.

use super::error::{Code, Error};
use super::request::Verb;
use super::version::Version;

/// The version to work with for a command and a configuration's `cniVersion`, by the rules and
/// in the words of the CNI library's dispatcher (`pkg/skel`).
///
/// # Errors
/// [`Code::IncompatibleVersion`] when the version is not supported or older than the command.
pub(super) fn negotiate(verb: Verb, text: &str) -> Result<Version, Error> {
    if let Some(oldest) = verb.since() {
        let asked = triple(text);
        let refuse = |who| {
            let msg = format!("{who} version does not allow {}", verb.as_str());
            Err(Error::new(Code::IncompatibleVersion, msg).with_details(format!(
                "cniVersion is {text:?}: {} exists from {} to {}",
                verb.as_str(),
                oldest.as_str(),
                Version::NEWEST.as_str()
            )))
        };
        if asked.is_some_and(|asked| Some(asked) < triple(oldest.as_str())) {
            return refuse("config");
        }
        if asked.is_some_and(|asked| Some(asked) > triple(Version::NEWEST.as_str())) {
            return refuse("plugin");
        }
    }
    Version::parse(text).ok_or_else(|| {
        let supported = Version::ALL.map(|version| format!("{:?}", version.as_str()));
        Error::new(Code::IncompatibleVersion, "incompatible CNI versions")
            .with_details(format!("config is {text:?}, plugin supports [{}]", supported.join(" ")))
    })
}

/// Major, minor and micro version, to compare also versions that are not supported. Missing parts
/// are zero, as in the CNI library.
fn triple(text: &str) -> Option<[u32; 3]> {
    if text.is_empty() {
        return Some([0, 1, 0]);
    }
    let mut triple = [0; 3];
    for (i, part) in text.split('.').enumerate() {
        *triple.get_mut(i)? = part.parse().ok()?;
    }
    Some(triple)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msg(verb: Verb, text: &str) -> String {
        let error = negotiate(verb, text).unwrap_err();
        assert_eq!(error.code, Code::IncompatibleVersion);
        error.msg
    }

    #[test]
    fn a_version_that_is_not_spoken_is_refused_with_those_that_are() {
        let error = negotiate(Verb::Add, "0.5.0").unwrap_err();
        assert_eq!(error.msg, "incompatible CNI versions");
        assert_eq!(
            error.details,
            "config is \"0.5.0\", plugin supports [\"0.1.0\" \"0.2.0\" \"0.3.0\" \"0.3.1\" \
             \"0.4.0\" \"1.0.0\" \"1.1.0\"]"
        );
    }

    #[test]
    fn a_command_needs_the_version_that_brought_it() {
        assert_eq!(msg(Verb::Check, "0.3.1"), "config version does not allow CHECK");
        assert_eq!(msg(Verb::Check, ""), "config version does not allow CHECK");
        assert_eq!(msg(Verb::Gc, "1.0.0"), "config version does not allow GC");
        assert_eq!(msg(Verb::Status, "0.4.0"), "config version does not allow STATUS");
        assert_eq!(msg(Verb::Check, "1.2.0"), "plugin version does not allow CHECK");
        assert_eq!(msg(Verb::Gc, "2.0.0"), "plugin version does not allow GC");
        assert_eq!(msg(Verb::Status, "1.1.1"), "plugin version does not allow STATUS");
        assert_eq!(msg(Verb::Check, "0.5.0"), "incompatible CNI versions");
        assert_eq!(msg(Verb::Gc, "x"), "incompatible CNI versions");
        assert_eq!(msg(Verb::Gc, "1.1.0.0"), "incompatible CNI versions");
        assert_eq!(negotiate(Verb::Check, "0.4.0"), Ok(Version::V0_4_0));
        assert_eq!(negotiate(Verb::Gc, "1.1.0"), Ok(Version::V1_1_0));
    }
}
