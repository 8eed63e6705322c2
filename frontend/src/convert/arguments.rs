//! Converts `ARG`, `ENV` and `LABEL`.

use parser::{Arg, ArgItem, Instruction, Pair, Pairs};

use super::Converter;
use crate::context;
use crate::error::{ErrorKind, FrontendError};
use crate::lint::{self, Rule};
use crate::outline::OutlineArg;
use crate::place::Place;
use crate::platform_args;

impl Converter<'_, '_> {
    /// Declares arguments, each with the value of those before it in sight.
    pub(super) fn arg(
        &mut self,
        place: Place,
        instruction: &Instruction,
        arg: &Arg,
    ) -> Result<(), FrontendError> {
        let mut history = "ARG".to_owned();
        for item in &arg.args {
            context::report_secret_name("ARG", &item.name.text, place, self.cx.linter);
            let name = self.expand(place, &item.name)?;
            if name.is_empty() {
                return Err(
                    place.error_at(item.name.span, ErrorKind::BlankName { instruction: "ARG" })
                );
            }
            let value = self.arg_value(place, item, &name)?;
            self.note_arg(place, instruction, item, &name, value.as_deref());
            history.push(' ');
            history += &name;
            if let Some(value) = value {
                history = history + "=" + &value;
                if platform_args::is_variable(&name) {
                    self.state.env.set(&name, &value);
                }
            }
            self.state.declared.declare(&name);
        }
        self.history(history, false);
        Ok(())
    }

    /// Value of an argument: what the user gave, else its default, else that of the global scope.
    fn arg_value(
        &self,
        place: Place,
        item: &ArgItem,
        name: &str,
    ) -> Result<Option<String>, FrontendError> {
        match (self.cx.options.build_args.get(name), &item.default) {
            (Some(given), _) => Ok(Some(given.clone())),
            (None, Some(default)) => self.expand(place, default).map(Some),
            (None, None) => Ok(self.cx.globals.scope.get(name).map(str::to_owned)),
        }
    }

    /// Notes an argument for the outline, and looks at the value that this stage gives it.
    fn note_arg(
        &self,
        place: Place,
        instruction: &Instruction,
        item: &ArgItem,
        name: &str,
        value: Option<&str>,
    ) {
        // One that only takes over the global value is that global argument.
        let is_own = item.default.is_some() || self.cx.options.build_args.contains_key(name);
        if is_own {
            context::report_secret_value("ARG", name, value, place, self.cx.linter);
        }
        let is_global = !is_own && self.cx.globals.scope.get(name).is_some();
        self.cx.notes.arg(self.id, name, || {
            (!is_global).then(|| OutlineArg {
                name: name.to_owned(),
                description: lint::file::description(instruction, name),
                value: value.map(str::to_owned),
                lines: place.lines,
            })
        });
    }

    /// Sets variables for the following steps and for the image.
    pub(super) fn env(
        &mut self,
        place: Place,
        keyword: &str,
        pairs: &Pairs,
    ) -> Result<(), FrontendError> {
        let values = self.pairs(place, keyword, pairs, "ENV")?;
        let mut history = "ENV".to_owned();
        for (name, value) in values {
            context::report_secret_name("ENV", &name, place, self.cx.linter);
            context::report_secret_value("ENV", &name, Some(&value), place, self.cx.linter);
            let line = format!("{name}={value}");
            history = history + " " + &line;
            self.state.env.set(&name, &value);
            self.state.env_places.set(&mut self.state.image.config.env, &name, line);
        }
        self.history(history, false);
        Ok(())
    }

    /// Labels the image.
    pub(super) fn label(
        &mut self,
        place: Place,
        keyword: &str,
        pairs: &Pairs,
    ) -> Result<(), FrontendError> {
        let values = self.pairs(place, keyword, pairs, "LABEL")?;
        let mut history = "LABEL".to_owned();
        for (name, value) in values {
            history = format!("{history} {name}={value}");
            self.state.image.config.labels.insert(name, value);
        }
        self.history(history, false);
        Ok(())
    }

    /// Names and values with variables replaced, all of them as they were before the instruction.
    fn pairs(
        &mut self,
        place: Place,
        keyword: &str,
        pairs: &Pairs,
        instruction: &'static str,
    ) -> Result<Vec<(String, String)>, FrontendError> {
        let value = |pair: &Pair| {
            let name = self.expand(place, &pair.name)?;
            if name.is_empty() {
                return Err(place.error_at(pair.name.span, ErrorKind::BlankName { instruction }));
            }
            Ok((name, self.expand(place, &pair.value)?))
        };
        let values: Vec<_> = pairs.pairs.iter().map(value).collect();
        let values = self.all(values)?;
        if pairs.legacy {
            self.cx.linter.report(Rule::LegacyKeyValueFormat, place.lines, || {
                format!(
                    "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
                )
            });
        }
        Ok(values)
    }
}
