//! The word for a machine.

use ring::hmac;

/// A digest by which a machine can be told from others, and from which nobody learns its id, which
/// other programs derive secrets from: as systemd makes ids for applications. 32 hex digits.
pub(crate) fn digest_of(machine_id: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, machine_id.as_bytes());
    let digest = hmac::sign(&key, b"leasehold");
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cause::Cause;

    const IDS: [&str; 2] = ["4c4c4544004d5a10804eb3c04f4a3533", "0f6a1c5be0a34d9a9c62ad5b1d7d4c11"];

    #[test]
    fn a_machine_is_shown_by_a_digest() {
        let id = IDS[0];
        let shown = digest_of(id);
        assert_eq!(shown.len(), 32);
        assert!(shown != id && shown == digest_of(id) && shown != digest_of(&id[1..]), "{shown}");
    }

    #[test]
    fn two_machines_of_one_name_are_told_apart_by_their_digests() {
        let [stored, own] = IDS.map(Into::into);
        let said = Cause::OtherMachine { node: "web-1".into(), stored, own }.to_string();
        for id in IDS {
            assert!(said.contains(&digest_of(id)) && !said.contains(id), "{said}");
        }
    }
}
