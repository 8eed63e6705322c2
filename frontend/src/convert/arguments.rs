//! `ARG`, `ENV` and `LABEL` (`spec/dockerfile-syntax.md` §11, `spec/instructions.md` §5).

use parser::{Arg, ArgItem, Pairs};

use super::Converter;
use crate::context;
use crate::error::{ErrorKind, FrontendError};
use crate::lint::Rule;
use crate::place::Place;
use crate::{platform_args, scope};

impl Converter<'_, '_> {
    /// Declares arguments, each with the value of those before it in sight.
    pub(super) fn arg(&mut self, place: Place, arg: &Arg) -> Result<(), FrontendError> {
        context::report_secret_names(arg, place, self.cx.linter);
        let mut history = "ARG".to_owned();
        for item in &arg.args {
            let name = self.expand(place, &item.name)?;
            if name.is_empty() {
                return Err(
                    place.error_at(item.name.span, ErrorKind::BlankName { instruction: "ARG" })
                );
            }
            let value = self.arg_value(place, item, &name)?;
            history.push(' ');
            history += &name;
            if let Some(value) = value {
                history = history + "=" + &value;
                if platform_args::is_variable(&name) {
                    self.state.env.set(&name, &value);
                }
            }
            if !self.state.declared.contains(&name) {
                self.state.declared.push(name);
            }
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
            (None, None) => Ok(self.cx.globals.get(name).map(str::to_owned)),
        }
    }

    /// Sets variables for the following steps and for the image.
    pub(super) fn env(&mut self, place: Place, pairs: &Pairs) -> Result<(), FrontendError> {
        let values = self.pairs(place, pairs, "ENV")?;
        let mut history = "ENV".to_owned();
        for (name, value) in values {
            context::report_secret_name("ENV", &name, place, self.cx.linter);
            let line = format!("{name}={value}");
            history = history + " " + &line;
            self.state.env.set(&name, &value);
            let env = &mut self.state.image.config.env;
            match env.iter_mut().find(|known| scope::split_line(known).0 == name) {
                Some(known) => *known = line,
                None => env.push(line),
            }
        }
        self.history(history, false);
        Ok(())
    }

    /// Labels the image.
    pub(super) fn label(&mut self, place: Place, pairs: &Pairs) -> Result<(), FrontendError> {
        let values = self.pairs(place, pairs, "LABEL")?;
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
        &self,
        place: Place,
        pairs: &Pairs,
        instruction: &'static str,
    ) -> Result<Vec<(String, String)>, FrontendError> {
        if pairs.legacy {
            self.cx.linter.report(Rule::LegacyKeyValueFormat, place.lines, || {
                format!(
                    "\"{instruction} key=value\" should be used instead of legacy \"{instruction} key value\" format"
                )
            });
        }
        let mut values = Vec::new();
        for pair in &pairs.pairs {
            let name = self.expand(place, &pair.name)?;
            if name.is_empty() {
                return Err(place.error_at(pair.name.span, ErrorKind::BlankName { instruction }));
            }
            values.push((name, self.expand(place, &pair.value)?));
        }
        Ok(values)
    }
}
