//! The variables of a scope, in the order in which they were set.

use std::collections::HashMap;

/// An ordered list of variables; setting one that exists keeps its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Variables {
    list: Vec<(String, String)>,
    /// Index in the list by name.
    places: HashMap<String, usize>,
}

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
        self.places.get(name).map(|place| self.list[*place].1.as_str())
    }

    /// Adds or replaces.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.places.get(name) {
            Some(place) => value.clone_into(&mut self.list[*place].1),
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// Adds `name` with an empty value unless it is there.
    pub(crate) fn declare(&mut self, name: &str) {
        if !self.places.contains_key(name) {
            self.set(name, "");
        }
    }

    /// Whether `name` is there.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Names and values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    /// `NAME=value` lines, in order.
    pub(crate) fn to_lines(&self) -> Vec<String> {
        self.list.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// Where the variables of a list of `NAME=value` lines stand; of several with one name the first counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinePlaces(HashMap<String, usize>);

impl LinePlaces {
    /// Places of the variables of `lines`.
    pub(crate) fn of(lines: &[String]) -> Self {
        let mut places = HashMap::new();
        for (place, line) in lines.iter().enumerate() {
            places.entry(split_line(line).0.to_owned()).or_insert(place);
        }
        Self(places)
    }

    /// Adds or replaces a line of the list that these are the places of.
    pub(crate) fn set(&mut self, lines: &mut Vec<String>, name: &str, line: String) {
        match self.0.get(name).and_then(|place| lines.get_mut(*place)) {
            Some(known) => *known = line,
            None => {
                self.0.insert(name.to_owned(), lines.len());
                lines.push(line);
            }
        }
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
        variables.declare("A");
        variables.declare("E");
        assert_eq!(variables.to_lines(), ["A=3", "B=2", "C=x=y", "D=", "E="]);
        assert_eq!((variables.get("C"), variables.get("F")), (Some("x=y"), None));
        assert!(variables.contains("E") && !variables.contains("F"));
    }

    #[test]
    fn a_line_is_replaced_at_its_place() {
        let mut lines = vec!["A=1".to_owned(), "B".to_owned(), "A=2".to_owned()];
        let mut places = LinePlaces::of(&lines);
        for (name, line) in [("B", "B=3"), ("C", "C=4"), ("A", "A=5"), ("C", "C=6")] {
            places.set(&mut lines, name, line.to_owned());
        }
        assert_eq!(lines, ["A=5", "B=3", "A=2", "C=6"]);
    }
}
