//! Pools and stages that only the pods of some Kubernetes namespaces get. The maker of a pod
//! chooses its name, so a pool or a stage that follows from the name is anybody's; the cluster
//! gives the namespace.

use super::error::{Code, Error};
use super::json_cursor::JsonCursor;
use crate::core::stage::Stage;
use crate::limits::{NAME_BYTES_MAX, NAMESPACES_MAX};

/// The keys of `ipam`. Where a central object has one of them, that counts alone.
pub(super) const KEYS: [&str; 2] = ["namespaces", "stageNamespaces"];

/// The namespaces that a configuration names.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// Those whose pods get addresses at all.
    pool: Option<Vec<String>>,
    /// Those whose pods get the addresses of a stage.
    stages: Vec<(Stage, Vec<String>)>,
}

impl Namespaces {
    /// Reads them.
    ///
    /// # Errors
    /// [`Code::Config`], with the field.
    pub(super) fn read(ipam: &JsonCursor<'_>) -> Result<Self, Error> {
        let pool = ipam.get(KEYS[0]).map(|list| names(&list)).transpose()?;
        let mut stages = Vec::new();
        if let Some(lists) = ipam.object(KEYS[1])? {
            for key in lists.keys() {
                if Stage::parse(key).is_none() {
                    return Err(lists.refuse(format!("has {key:?}, which is not a stage")));
                }
            }
            for stage in Stage::ALL {
                if let Some(list) = lists.get(stage.as_str()) {
                    stages.push((stage, names(&list)?));
                }
            }
        }
        Ok(Self { pool, stages })
    }

    /// Lets a pod of this namespace have an address of the pool, and of the stage.
    ///
    /// # Errors
    /// [`Code::NotAllowed`]: it may not.
    pub(super) fn admit(&self, namespace: Option<&str>, stage: Option<Stage>) -> Result<(), Error> {
        let of_stage = self.stages.iter().find(|(of, _)| Some(*of) == stage);
        let of_stage = of_stage.map(|(of, names)| (format!("stage {of}"), KEYS[1], names));
        let of_pool = self.pool.as_ref().map(|names| ("this pool".to_owned(), KEYS[0], names));
        for (subject, key, names) in of_pool.into_iter().chain(of_stage) {
            if namespace.is_some_and(|own| names.iter().any(|name| name == own)) {
                continue;
            }
            let own = match namespace {
                Some(own) => format!("not for those of {own}"),
                None => "and CNI_ARGS has no K8S_POD_NAMESPACE".to_owned(),
            };
            let msg = format!("{subject} is for pods of namespace {}, {own}", names.join(", "));
            let details = format!(
                "ipam.{key} says so: add the namespace there, or name another \
                                   network"
            );
            return Err(Error::new(Code::NotAllowed, msg).with_details(details));
        }
        Ok(())
    }
}

/// A list of namespaces. An empty one would refuse every pod, which nobody means.
fn names(list: &JsonCursor<'_>) -> Result<Vec<String>, Error> {
    let items = list.an_array(NAMESPACES_MAX)?;
    if items.len() == 0 {
        return Err(list.refuse("is empty: name a namespace, or leave it out"));
    }
    let name = |item: JsonCursor<'_>| match item.text()? {
        name if name.is_empty() || name.len() > NAME_BYTES_MAX => {
            Err(item.refuse("is not the name of a namespace"))
        }
        name => Ok(name.to_owned()),
    };
    items.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::central::check;
    use crate::cni::parse::parse;
    use crate::cni::vectors::{Call, with_ipam};

    fn add(ipam: &str, args: &str) -> Result<(), Error> {
        let args = format!("IgnoreUnknown=1;{args}");
        parse(Call { args, ..with_ipam(ipam) }.body().as_bytes()).map(|_| ())
    }

    #[test]
    fn only_pods_of_these_namespaces_get_the_pool_or_the_stage() {
        let ranges = r#""ranges":[[{"subnet":"10.1.2.0/24","sandbox":["10.1.2.9"]}]]"#;
        let pool = format!(r#"{{{ranges},"namespaces":["pay","shop"]}}"#);
        let stage = format!(r#"{{{ranges},"stageNamespaces":{{"sandbox":["test"]}}}}"#);
        let (of, pod) = ("K8S_POD_NAMESPACE=", "K8S_POD_NAME=pay-1-sandbox-x");
        for (ipam, args, words) in [
            (&pool, format!("{of}pay"), ""),
            (&pool, format!("{of}shop;{pod}"), ""),
            (&pool, format!("{of}evil"), "pods of namespace pay, shop, not for those of evil"),
            (&pool, format!("{of}PAY"), "not for those of PAY"),
            (&pool, pod.to_owned(), "CNI_ARGS has no K8S_POD_NAMESPACE"),
            (&stage, format!("{of}test;{pod}"), ""),
            (&stage, format!("{of}evil;{pod}"), "stage sandbox is for pods of namespace test"),
            (&stage, format!("{of}evil;STAGE=sandbox"), "stage sandbox is for"),
            (&stage, pod.to_owned(), "CNI_ARGS has no K8S_POD_NAMESPACE"),
            (&stage, format!("{of}evil"), ""),
        ] {
            match add(ipam, &args) {
                Ok(()) => assert_eq!(words, "", "{ipam} {args}"),
                Err(error) => {
                    assert_eq!(error.code, Code::NotAllowed, "{error:?}");
                    assert!(!words.is_empty() && error.msg.contains(words), "{args}: {error:?}");
                    assert!(error.details.contains("amespaces"), "{error:?}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_list_is_refused_with_its_field() {
        for (field, words) in [
            (r#""namespaces":[]"#, "ipam.namespaces is empty"),
            (r#""namespaces":"pay""#, "ipam.namespaces must be an array"),
            (r#""namespaces":["pay",7]"#, "ipam.namespaces[1] must be a string"),
            (r#""namespaces":[""]"#, "ipam.namespaces[0] is not the name"),
            (r#""stageNamespaces":["x"]"#, "ipam.stageNamespaces must be an object"),
            (r#""stageNamespaces":{"online":["x"]}"#, "has \"online\", which is not a stage"),
            (r#""stageNamespaces":{"sandbox":[]}"#, "ipam.stageNamespaces.sandbox is empty"),
        ] {
            let object = format!(r#"{{"ranges":[[{{"subnet":"10.1.2.0/24"}}]],{field}}}"#);
            let error = check(object.as_bytes()).unwrap_err();
            assert!(error.code == Code::Config && error.msg.contains(words), "{error:?}");
        }
    }
}
