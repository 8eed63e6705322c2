//! Variables of a scope in their order (`spec/dockerfile-syntax.md` §11.1).

/// An ordered list of variables; setting one that exists keeps its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Variables(Vec<(String, String)>);

impl Variables {
    /// Variables of `NAME=value` lines; a line without `=` has an empty value.
    pub(crate) fn from_lines(lines: &[String]) -> Self {
        let mut variables = Self::default();
        for line in lines {
            let (name, value) = split_line(line);
            variables.set(name, value);
        }
        variables
    }

    /// Value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Adds or replaces.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Names and values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// `NAME=value` lines, in order.
    pub(crate) fn to_lines(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// Name and value of a `NAME=value` line.
pub(crate) fn split_line(line: &str) -> (&str, &str) {
    line.split_once('=').unwrap_or((line, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_keeps_its_place() {
        let mut variables =
            Variables::from_lines(&["A=1".to_owned(), "B".to_owned(), "C=x=y".to_owned()]);
        variables.set("B", "2");
        variables.set("D", "");
        variables.set("A", "3");
        assert_eq!(variables.to_lines(), ["A=3", "B=2", "C=x=y", "D="]);
        assert_eq!((variables.get("C"), variables.get("E")), (Some("x=y"), None));
    }
}
