//! Versions of the CNI specification, and which command goes with which.

use super::error::{Code, Error};
use super::request::Verb;

/// A version of the CNI specification that Leasehold speaks, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// 0.1.0, also when the configuration names none.
    V0_1_0,
    /// 0.2.0.
    V0_2_0,
    /// 0.3.0.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0: the first with CHECK.
    V0_4_0,
    /// 1.0.0.
    V1_0_0,
    /// 1.1.0: the first with GC and STATUS.
    V1_1_0,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The version that is said when the caller's is not known.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version with exactly this text (`1.0` is none); the empty text is 0.1.0.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// The version to work with for a command and a configuration's `cniVersion`, by the rules and
    /// in the words of the CNI library's dispatcher (`pkg/skel`).
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`] when the version is not supported or older than the command.
    pub(super) fn negotiate(verb: Verb, text: &str) -> Result<Self, Error> {
        if let Some(oldest) = verb.since() {
            let asked = triple(text);
            let refuse = |who| {
                let msg = format!("{who} version does not allow {}", verb.as_str());
                Err(Error::new(Code::IncompatibleVersion, msg).with_details(format!(
                    "cniVersion is {text:?}: {} is there from {} to {}",
                    verb.as_str(),
                    oldest.as_str(),
                    Self::NEWEST.as_str()
                )))
            };
            if asked.is_some_and(|asked| Some(asked) < triple(oldest.as_str())) {
                return refuse("config");
            }
            if asked.is_some_and(|asked| Some(asked) > triple(Self::NEWEST.as_str())) {
                return refuse("plugin");
            }
        }
        Self::parse(text).ok_or_else(|| {
            let supported = Self::ALL.map(|version| format!("{:?}", version.as_str()));
            Error::new(Code::IncompatibleVersion, "incompatible CNI versions").with_details(
                format!("config is {text:?}, plugin supports [{}]", supported.join(" ")),
            )
        })
    }
}

/// Major, minor and micro version, to compare versions that are not supported as well. Parts that
/// are missing are zero, as in the CNI library.
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
        let error = Version::negotiate(verb, text).unwrap_err();
        assert_eq!(error.code, Code::IncompatibleVersion);
        error.msg
    }

    #[test]
    fn a_version_is_matched_whole() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        assert_eq!(Version::parse(""), Some(Version::V0_1_0));
        for text in ["1.0", "1", "v1.0.0", "0.5.0", "1.2.0", " 1.0.0", "1.0.0 "] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        let error = Version::negotiate(Verb::Add, "0.5.0").unwrap_err();
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
        assert_eq!(Version::negotiate(Verb::Check, "0.4.0"), Ok(Version::V0_4_0));
        assert_eq!(Version::negotiate(Verb::Gc, "1.1.0"), Ok(Version::V1_1_0));
    }
}
