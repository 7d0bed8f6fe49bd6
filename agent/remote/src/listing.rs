//! S3's list of objects: XML from outside.

use roxmltree::{Document, Node};

/// One page of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Keys and sizes.
    pub(crate) objects: Vec<(String, u64)>,
    /// What asks for the next page, if there is one.
    pub(crate) next: Option<String>,
}

/// Reads a page.
pub(crate) fn parse(text: &str) -> Result<Page, String> {
    let document = Document::parse(text).map_err(|error| format!("it is no XML: {error}"))?;
    let root = document.root_element();
    if root.tag_name().name() != "ListBucketResult" {
        return Err(format!("it is no list of objects but <{}>", root.tag_name().name()));
    }
    let mut objects = Vec::new();
    for object in root.children().filter(|child| child.has_tag_name_of("Contents")) {
        let key = object.text_of("Key").ok_or("an object has no key")?;
        let size = object.text_of("Size").and_then(|size| size.trim().parse().ok());
        objects.push((key.to_owned(), size.ok_or_else(|| format!("{key:?} has no size"))?));
    }
    let is_truncated = root.text_of("IsTruncated").is_some_and(|text| text.trim() == "true");
    let next = root.text_of("NextContinuationToken").map(str::to_owned);
    if is_truncated && next.is_none() {
        return Err("it is not whole, and does not say how to go on".to_owned());
    }
    Ok(Page { objects, next: next.filter(|_| is_truncated) })
}

/// Elements by their names, whatever the namespace: stores differ in it.
trait Named<'a> {
    fn has_tag_name_of(&self, name: &str) -> bool;
    fn text_of(&self, name: &str) -> Option<&'a str>;
}

impl<'a> Named<'a> for Node<'a, '_> {
    fn has_tag_name_of(&self, name: &str) -> bool {
        self.tag_name().name() == name
    }

    fn text_of(&self, name: &str) -> Option<&'a str> {
        self.children().find(|child| child.has_tag_name_of(name)).and_then(|child| child.text())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A page as stores write it.
    pub(super) fn written(objects: &[(String, u64)], next: Option<&str>) -> String {
        let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let objects: String = objects
            .iter()
            .map(|(key, size)| {
                format!("<Contents><Key>{}</Key><ETag>&quot;x&quot;</ETag><Size>{size}</Size></Contents>", escape(key))
            })
            .collect();
        let next = next.map(|next| format!("<NextContinuationToken>{}</NextContinuationToken>", escape(next)));
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>\
             <IsTruncated>{}</IsTruncated>{objects}{}</ListBucketResult>",
            next.is_some(),
            next.unwrap_or_default()
        )
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(parse("<ListBucketResult/>"), Ok(Page::default()));
        for (bad, why) in [
            ("", "no XML"),
            ("<Error><Code>AccessDenied</Code></Error>", "<Error>"),
            ("<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>", "no key"),
            ("<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>", "no size"),
            ("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "how to go on"),
            ("<!DOCTYPE a [<!ENTITY b \"c\">]><ListBucketResult>&b;</ListBucketResult>", "no XML"),
        ] {
            let reason = parse(bad).unwrap_err();
            assert!(reason.contains(why), "{bad}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn a_list_reads_back(
            objects in prop::collection::vec(("[a-z<>&/ .:ü-]{1,20}", any::<u64>()), 0..20),
            next in prop::option::of("[a-zA-Z0-9&=+/]{1,40}"),
        ) {
            let page = parse(&written(&objects, next.as_deref())).unwrap();
            prop_assert_eq!(page, Page { objects, next });
        }

        #[test]
        fn nothing_that_comes_breaks_it(text in ".{0,200}", at in 0_usize..400) {
            let _any = parse(&text);
            let whole = written(&[("a".to_owned(), 1)], Some("next"));
            let at = at.min(whole.len());
            let _any = parse(&format!("{}{text}{}", &whole[..at], &whole[at..]));
        }
    }
}
