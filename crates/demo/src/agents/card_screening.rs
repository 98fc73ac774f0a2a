//! Screens card payments: one small question to a small model for each, hundreds in a quarter of an
//! hour. Its prompt template comes in versions, among which a router divides the traffic; who holds the
//! server's word may change the division while it runs.

use futures_util::future::BoxFuture;
use throughline::llm::{ChatRequest, ChatResponse, Message};
use throughline::{
    ChatError, ChatModel, ChatStream, Dimensions, Endpoint, Phase, RouteTo, Router, RoutingTags,
    Traced, decision, step, workflow,
};

use crate::stories::screening::{AGAIN, AGENT, CANDIDATE, Payment, ROUTE, STABLE, read, template};

/// Small and quick.
const MODEL: &str = "gpt-4.1-nano";

/// How often the model is asked in all before a person shall look at it.
const MAX_QUESTIONS: usize = 8;

/// How sure nobody is of what could not be read.
const UNREAD_CONFIDENCE: f64 = 0.3;

/// The agent, with all versions of its template.
#[derive(Debug, Clone)]
pub(crate) struct CardScreening {
    router: Router,
}

impl CardScreening {
    /// An agent over this model, all of whose traffic goes to the stable template.
    pub(crate) fn new(model: &Traced) -> anyhow::Result<Self> {
        let version = |version: &'static str, weight| {
            let screener = Screener { version, model: model.clone() };
            RouteTo::new(version, screener).model_as_requested().version(version).weight(weight)
        };
        // Every payment is drawn anew: cards are few, and a share shall be one of payments.
        let router = Router::builder(ROUTE)
            .sticky_by_session(false)
            .target(version(STABLE, 100))
            .target(version(CANDIDATE, 0))
            .build()?;
        Ok(Self { router })
    }

    /// Screens one payment.
    ///
    /// # Errors
    /// When the model cannot be asked.
    pub(crate) async fn screen(&self, payment: Payment) -> Result<(), ChatError> {
        let session = format!("card-{}", payment.card);
        let whose = Dimensions::new().agent(AGENT).session(session).role("risk");
        workflow("card_payment")
            .id("card_payment")
            .dimensions(whose)
            .run(async {
                let request = ChatRequest::new(MODEL).user(payment.letter());
                self.router.chat(request).await?;
                Ok(())
            })
            .await
    }
}

/// One version of the template, with the step that it stands for.
#[derive(Debug)]
struct Screener {
    version: &'static str,
    model: Traced,
}

impl Screener {
    async fn screen(&self, request: ChatRequest) -> Result<ChatResponse, ChatError> {
        let screening = step(AGENT, Phase::Act, "payment")
            .attribute("prompt.template", "card_screening")
            .attribute("prompt.version", self.version)
            .start();
        let facts: Vec<String> = request.messages.iter().map(Message::joined_text).collect();
        let work = async {
            let mut messages = vec![Message::system(template(self.version))];
            messages.extend(request.messages.iter().cloned());
            let mut asked = 0;
            let (response, verdict) = loop {
                let question = ChatRequest { messages: messages.clone(), ..request.clone() };
                let response = self.model.chat(question).await?;
                asked += 1;
                match read(&response.text()) {
                    Some(verdict) => break (response, Some(verdict)),
                    None if asked >= MAX_QUESTIONS => break (response, None),
                    None => {
                        tracing::warn!(
                            asked,
                            "the verdict cannot be read, the model is asked again"
                        );
                        messages.push(Message::assistant(response.text()));
                        messages.push(Message::user(format!("{AGAIN} Once more, please.")));
                    }
                }
            };
            let is_read = verdict.is_some();
            let (action, confidence) =
                verdict.unwrap_or_else(|| ("review".to_owned(), UNREAD_CONFIDENCE));
            let reason = match (asked, is_read) {
                (1, true) => "the first answer was clear".to_owned(),
                (asked, true) => {
                    format!("it took {asked} questions to get a verdict that can be read")
                }
                (asked, false) => format!("none of {asked} answers could be read"),
            };
            let version = RoutingTags::current().version().unwrap_or(self.version).to_owned();
            decision("act")
                .action(action)
                .reason(reason)
                .confidence(confidence)
                .input(&facts)
                .model_version(version)
                .attribute("prompt.version", self.version)
                .attribute("questions", asked as i64)
                .record();
            Ok(response)
        };
        screening.instrument(work).await
    }
}

impl ChatModel for Screener {
    fn endpoint(&self) -> Endpoint {
        self.model.endpoint()
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        Box::pin(self.screen(request))
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        self.model.stream(request)
    }
}
