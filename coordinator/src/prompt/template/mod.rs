//! Messages to the one text that a model was trained to continue.
//!
//! Templates come with models and are not trusted: a render has so much fuel (which bounds its time
//! and its memory), its output is bounded, and it runs on a stack of its own.

use std::io;
use std::time::SystemTime;

use checkpoint::TemplateTokens;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value as Json};

use crate::prompt::dumps::tojson;
use crate::prompt::guard::{Guard, Rendered};
use crate::prompt::strftime::strftime;
use crate::prompt::tokenizer::Tokenizer;

/// Bytes of the longest template; the longest known ones have about 20 000.
const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// Bytes of the longest rendered conversation.
const OUTPUT_BYTES_MAX: usize = 32 << 20;
/// Instructions, or 64 bytes of data each, that any render may use; long templates use a few thousand.
const FUEL: u64 = 1_000_000;
/// More fuel for each byte of the conversation: a template may look at each a few dozen times.
const FUEL_PER_BYTE: u64 = 1;
/// Values that a template nested deeply are dropped recursively. Only what is used is ever real.
const STACK_BYTES: usize = 256 << 20;

/// What models with `ChatML`'s tokens, but without a template, are given.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// What models that were never taught to converse are given.
const PLAIN: &str = "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

/// Why a conversation cannot be rendered, or a template not be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template is broken.
    #[error("the model's chat template is broken: {0}")]
    Syntax(String),
    /// The template itself refused the conversation, or could not render it.
    #[error("the model's chat template cannot render this conversation: {0}")]
    Render(String),
    /// The conversation or the template is too large.
    #[error("the conversation is too large to render")]
    TooLarge,
}

/// What is rendered.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Objects with `role`, `content` and what else a template may look at.
    pub messages: Vec<Json>,
    /// End with the beginning of the assistant's next message.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking`.
    pub variables: Map<String, Json>,
}

/// A chat template, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    tokens: TemplateTokens,
    stop_strings: &'static [&'static str],
}

impl ChatTemplate {
    /// The model's template. A model without one gets `ChatML`'s form if its vocabulary has `ChatML`'s
    /// tokens, else a plain transcript (`User: …`, `Assistant:`), which ends where the model begins
    /// to write the user's next line.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn for_model(
        source: Option<&str>,
        tokens: TemplateTokens,
        tokenizer: &Tokenizer,
    ) -> Result<Self, TemplateError> {
        let has = |text| tokenizer.control_token(text).is_some();
        let (source, stop_strings): (_, &[&str]) = match source {
            Some(source) => (source, &[]),
            None if has("<|im_start|>") && has("<|im_end|>") => (CHATML, &["<|im_end|>"]),
            None => (PLAIN, &["\nUser:"]),
        };
        Ok(Self { stop_strings, ..Self::new(source, tokens)? })
    }

    /// A template as given; the tokens are its `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn new(source: &str, tokens: TemplateTokens) -> Result<Self, TemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLarge);
        }
        let broken = |error: Error| TemplateError::Syntax(message(&error));
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(broken)?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", |state: &State<'_, '_>, value: Value, options: Kwargs| {
            tojson(state, &value, &options)
        });
        environment.add_test("iterable", is_iterable);
        environment.add_filter("length", length);
        environment.add_filter("count", length);
        environment.add_function("raise_exception", raise_exception);
        let source = without_generation_tags(source);
        environment.add_template_owned("chat", source.clone()).map_err(broken)?;
        Ok(Self { environment, source, tokens, stop_strings: &[] })
    }

    /// Renders a conversation. Control tokens in messages are marked, so that they stay letters; see
    /// [`Tokenizer::encode_rendered`].
    ///
    /// # Errors
    /// [`TemplateError::Render`] with what the template says, or [`TemplateError::TooLarge`].
    pub fn render(
        &self,
        mut conversation: Conversation,
        tokenizer: &Tokenizer,
        now: SystemTime,
    ) -> Result<Rendered, TemplateError> {
        let guard = Guard::new(
            conversation.messages.iter().chain(conversation.variables.values()),
            &self.source,
        )
        .ok_or(TemplateError::TooLarge)?;
        for message in &mut conversation.messages {
            guard.apply(message, tokenizer);
        }
        for variable in conversation.variables.values_mut() {
            guard.apply(variable, tokenizer);
        }
        let text = std::thread::scope(|scope| {
            let render = || self.render_marked(conversation, now);
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, render);
            let thread = thread.map_err(|error| TemplateError::Render(error.to_string()))?;
            thread.join().unwrap_or_else(|_| {
                Err(TemplateError::Render("the template engine failed".to_owned()))
            })
        })?;
        Ok(guard.finish(&text))
    }

    /// Strings at which an answer ends, where no token says so.
    #[must_use]
    pub fn stop_strings(&self) -> &'static [&'static str] {
        self.stop_strings
    }

    /// The template names this word: a role or a variable it may know.
    #[must_use]
    pub fn mentions(&self, word: &str) -> bool {
        self.source.contains(word)
    }

    fn render_marked(
        &self,
        conversation: Conversation,
        now: SystemTime,
    ) -> Result<String, TemplateError> {
        let bytes: usize = conversation.messages.iter().map(size).sum();
        let mut environment = self.environment.clone();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        environment.set_fuel(Some(bytes.saturating_mul(FUEL_PER_BYTE).saturating_add(FUEL)));
        let mut variables: Vec<(String, Value)> = conversation
            .variables
            .into_iter()
            .map(|(name, value)| (name, Value::from(Serde(value))))
            .collect();
        let text = |token: Option<&str>| Value::from(token.unwrap_or_default());
        let strftime_now = move |format: &str| strftime(format, now);
        for (name, value) in [
            ("messages", Value::from(Serde(conversation.messages))),
            ("add_generation_prompt", Value::from(conversation.add_generation_prompt)),
            ("bos_token", text(self.tokens.begin.as_deref())),
            ("eos_token", text(self.tokens.end.as_deref())),
            ("tools", Value::from(())),
            ("strftime_now", Value::from_function(strftime_now)),
        ] {
            variables.push((name.to_owned(), value));
        }
        let failed = |error: Error| match error.kind() {
            ErrorKind::WriteFailure | ErrorKind::OutOfFuel => TemplateError::TooLarge,
            _ => TemplateError::Render(message(&error)),
        };
        let template = environment.get_template("chat").map_err(failed)?;
        let mut output = Bounded(Vec::new());
        template.render_captured_to(Value::from_pairs(variables), &mut output).map_err(failed)?;
        String::from_utf8(output.0).map_err(|_| TemplateError::TooLarge)
    }
}

/// A text that may grow only so far.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(what: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, what))
}

/// As in Python, where nothing is no empty list.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// As in Jinja, where what is not defined has a length.
fn length(value: &Value) -> Result<usize, Error> {
    match value.len() {
        None if value.is_undefined() => Ok(0),
        None => {
            let what = format!("a value of the type {} has no length", value.kind());
            Err(Error::new(ErrorKind::InvalidOperation, what))
        }
        Some(length) => Ok(length),
    }
}

fn message(error: &Error) -> String {
    let kind = error.kind().to_string();
    let text = match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    };
    text.chars().take(500).collect()
}

/// Bytes of text in a value, roughly.
fn size(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len() + 8,
        Json::Array(items) => items.iter().map(size).sum::<usize>() + 8,
        Json::Object(fields) => fields.iter().map(|(key, field)| key.len() + size(field)).sum(),
        Json::Null | Json::Bool(_) | Json::Number(_) => 8,
    }
}

/// `{% generation %}` marks what a model is trained on; for rendering it means nothing.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(close) = rest[open..].find("%}") else { break };
        let tag = &rest[open + 2..open + close];
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        if word == "generation" || word == "endgeneration" {
            text.push_str(&rest[..open]);
            // A comment trims white space as the tag would.
            text.push_str(if tag.starts_with('-') { "{#-" } else { "{#" });
            text.push_str(if tag.ends_with('-') { "-#}" } else { "#}" });
        } else {
            text.push_str(&rest[..open + close + 2]);
        }
        rest = &rest[open + close + 2..];
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests;
