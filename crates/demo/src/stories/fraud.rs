//! Nordhavn Bank: card authorisations that look odd, and some that only seem to.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Part, money};
use crate::pace::Pace;
use crate::provider::{ChatRequest, Reply};
use crate::seed::Seed;
use crate::world::{Breakage, Unavailable, World};

/// The agent's name.
pub const AGENT: &str = "fraud_check";

pub(super) const PART: Part = Part {
    agent: AGENT,
    mark: "fraud analyst of Nordhavn Bank",
    prefix: "TX-",
    first: 73_010,
    main_model: "gpt-4o",
    sessions: &[3, 2, 2, 3],
    perform,
};

/// One authorisation that waits for a verdict.
#[derive(Debug, Clone)]
pub struct Case {
    /// Reference of the authorisation.
    pub reference: String,
    /// One session per card.
    pub session: String,
    /// Last four digits of the card.
    pub card: &'static str,
    /// Who the card belongs to, and where they live.
    pub holder: &'static str,
    /// Three letters.
    pub currency: &'static str,
    /// In the currency.
    pub amount: f64,
    /// Who wants the money, and where.
    pub merchant: &'static str,
    /// When, on the merchant's clock.
    pub local_time: &'static str,
    /// How the card was used.
    pub channel: &'static str,
    sketch: &'static Sketch,
}

#[derive(Debug)]
struct Sketch {
    amount: f64,
    merchant: &'static str,
    local_time: &'static str,
    channel: &'static str,
    /// Typical amount of the card, and how many payments abroad and in the last hour.
    typical: f64,
    abroad: u64,
    last_hour: u64,
    history_note: &'static str,
    /// Days since the device was first seen with the card; `None` for a card terminal.
    device_days: Option<u64>,
    device: &'static str,
    /// Best match with a sanctions list: score and entry.
    sanctions: Option<(f64, &'static str)>,
    opening: &'static str,
    verdict: &'static str,
    confidence: f64,
    reason: &'static str,
}

struct Holder {
    card: &'static str,
    holder: &'static str,
    currency: &'static str,
    runs: &'static [Sketch],
}

impl Case {
    /// The authorisation of run `run`.
    pub fn of(seed: Seed, run: u64) -> Self {
        let place = PART.place(seed, run);
        let Holder { card, holder, currency, runs } = &HOLDERS[place.session];
        let sketch = &runs[place.step];
        // The same story is told again with another amount.
        let share = seed.named("amount").nth(run).dice().between(0.94, 1.06);
        Self {
            reference: PART.reference(run),
            session: PART.session_id(seed, place, "card"),
            card,
            holder,
            currency,
            amount: (sketch.amount * share * 100.0).round() / 100.0,
            merchant: sketch.merchant,
            local_time: sketch.local_time,
            channel: sketch.channel,
            sketch,
        }
    }

    /// The amount as people write it.
    pub fn price(&self) -> String {
        format!("{} {}", self.currency, money(self.amount))
    }
}

/// The bank's systems.
#[derive(Debug, Clone)]
pub struct Bank {
    case: Case,
    world: World,
}

impl Bank {
    /// The systems as they are during run `run`.
    pub fn of(seed: Seed, run: u64, pace: Pace) -> Self {
        Self { case: Case::of(seed, run), world: World::new(seed, AGENT, run, pace) }
    }

    /// What the card was used for in the last `days` days.
    pub async fn history(&self, card: &str, days: u16) -> Value {
        self.world.work("ledger", Duration::from_millis(420)).await;
        let sketch = self.case.sketch;
        json!({
            "card": card,
            "days": days,
            "typical_amount": sketch.typical,
            "payments_abroad": sketch.abroad,
            "payments_last_hour": sketch.last_hour,
            "note": sketch.history_note,
        })
    }

    /// The device that asked.
    ///
    /// # Errors
    /// When the fingerprint service is down.
    pub async fn device(&self, reference: &str) -> Result<Value, Unavailable> {
        let usual = Duration::from_millis(610);
        self.world.fragile_work("fingerprint.nordhavn.internal", usual, Breakage::Refuses).await?;
        let sketch = self.case.sketch;
        Ok(json!({
            "authorisation": reference,
            "device": sketch.device,
            "days_known": sketch.device_days,
        }))
    }

    /// Whether a name is near one on a sanctions list.
    pub async fn sanctions(&self, name: &str) -> Value {
        self.world.work("sanctions", Duration::from_millis(230)).await;
        match self.case.sketch.sanctions {
            Some((score, entry)) => {
                json!({"name": name, "matches": [{"entry": entry, "score": score}]})
            }
            None => json!({"name": name, "matches": []}),
        }
    }
}

fn perform(seed: Seed, run: u64, request: &ChatRequest) -> Option<Reply> {
    let case = Case::of(seed, run);
    let sketch = case.sketch;
    if request.last_user_text().contains("second pair of eyes") {
        return Some(second_look(&case));
    }
    let history = !request.results_of("transaction_history_v1").is_empty();
    let device = request.results_of("device_fingerprint_v2");
    if !history && request.offers("transaction_history_v1") {
        let mut first = Reply::text(sketch.opening);
        first = first.and_call("transaction_history_v1", json!({"card": case.card, "days": 90}));
        return Some(
            first.and_call("device_fingerprint_v2", json!({"authorisation": case.reference})),
        );
    }
    let merchant = case.merchant.split(',').next().unwrap_or(case.merchant);
    if request.results_of("sanctions_list_v1").is_empty() && request.offers("sanctions_list_v1") {
        let first = Reply::text(format!(
            "{} Before I say anything about {merchant}, the lists.",
            sketch.history_note
        ));
        return Some(first.and_call("sanctions_list_v1", json!({"name": merchant})));
    }
    let is_blind = device.last().is_none_or(|result| !result.contains("days_known"));
    if is_blind && (sketch.verdict != "approve" || sketch.amount > 500.0) {
        return Some(Reply::text(format!(
            "The fingerprint service gave me nothing, so I do not know whose device asked for {}. \
             {} With one eye shut I would rather have a person look.\n\nverdict: review, confidence 0.57",
            case.price(),
            sketch.reason
        )));
    }
    Some(Reply::text(format!(
        "{}\n\nverdict: {}, confidence {:.2}",
        sketch.reason, sketch.verdict, sketch.confidence
    )))
}

fn second_look(case: &Case) -> Reply {
    let Sketch { verdict, confidence, .. } = case.sketch;
    Reply::text(match *verdict {
        "decline" => format!("I would decline {} too: nothing in the file explains it better than theft does.\nagrees: yes, confidence {confidence:.2}", case.price()),
        "approve" => format!("Nothing to add. {} at {} is a Tuesday for this card.\nagrees: yes, confidence {confidence:.2}", case.price(), case.merchant),
        _ => "I could argue either side, which is the definition of a case for a person.\nagrees: yes, confidence 0.60".to_owned(),
    })
}

const HOLDERS: [Holder; 4] = [
    Holder {
        card: "4417",
        holder: "Ingrid Solheim, Bergen",
        currency: "EUR",
        runs: &[
            Sketch {
                amount: 2_349.0,
                merchant: "Lumière Électronique, Antwerp",
                local_time: "03:12",
                channel: "online",
                typical: 38.0,
                abroad: 0,
                last_hour: 3,
                history_note: "Groceries, ferries, a yoga subscription; never more than 310, never abroad.",
                device_days: Some(0),
                device: "Android emulator behind a data-centre address in Vilnius",
                sanctions: None,
                opening: "A laptop's worth of electronics at three in the morning, from a card that buys groceries. I want the history and the device.",
                verdict: "decline",
                confidence: 0.91,
                reason: "Sixty times the card's usual amount, from an emulator first seen today, after two smaller attempts within the hour. This is what a stolen number looks like when it is tried out.",
            },
            Sketch {
                amount: 61.2,
                merchant: "REMA 1000 Danmarksplass, Bergen",
                local_time: "17:48",
                channel: "chip and PIN",
                typical: 38.0,
                abroad: 0,
                last_hour: 0,
                history_note: "The same shop, most Thursdays, about this time.",
                device_days: None,
                device: "card terminal of the merchant",
                sanctions: None,
                opening: "A supermarket around the corner from the holder's address. I look at the history out of habit.",
                verdict: "approve",
                confidence: 0.97,
                reason: "Chip and PIN, the usual shop, the usual hour, the usual amount. If this is fraud, the thief also cooks fish on Thursdays.",
            },
            Sketch {
                amount: 89.5,
                merchant: "SNCB train tickets, Antwerp",
                local_time: "09:05",
                channel: "online",
                typical: 38.0,
                abroad: 1,
                last_hour: 0,
                history_note: "A hotel in Antwerp was booked three weeks ago, and paid in Bergen.",
                device_days: Some(812),
                device: "Ingrid's own iPhone, roaming in Belgium since yesterday evening",
                sanctions: None,
                opening: "Antwerp again, and this time for train tickets. Either the thief is touring, or the holder is there.",
                verdict: "review",
                confidence: 0.58,
                reason: "Her own phone is in Belgium and she had booked a hotel there. So she travels, which also makes the purchase declined earlier less certain. Someone should ring her about both.",
            },
        ],
    },
    Holder {
        card: "9052",
        holder: "Marcus Oyelaran, Leeds",
        currency: "GBP",
        runs: &[
            Sketch {
                amount: 1.0,
                merchant: "Haldon Donkey Haven donations, Exeter",
                local_time: "14:31",
                channel: "online",
                typical: 24.0,
                abroad: 0,
                last_hour: 5,
                history_note: "Five donations of one pound to five charities within four minutes, none before.",
                device_days: Some(0),
                device: "headless Chromium, language set to none",
                sanctions: None,
                opening: "One pound for donkeys is charming. It is also how card numbers are tested, so let me see what came just before.",
                verdict: "decline",
                confidence: 0.94,
                reason: "Five one-pound donations in four minutes from a browser without a screen. A script is checking which of its card numbers still work, and the donkeys will have to send the money back.",
            },
            Sketch {
                amount: 640.4,
                merchant: "British Airways, London",
                local_time: "20:16",
                channel: "online, 3-D Secure",
                typical: 24.0,
                abroad: 2,
                last_hour: 0,
                history_note: "Flights to Lagos every December, bought in autumn, from the same laptop.",
                device_days: Some(1_044),
                device: "Marcus's MacBook, known since 2023",
                sanctions: None,
                opening: "Large for this card, but airlines are. History and device will tell.",
                verdict: "approve",
                confidence: 0.88,
                reason: "He flies to Lagos every December and buys the ticket about now, on this laptop, and he confirmed it with 3-D Secure. The amount is unusual; the person is not.",
            },
        ],
    },
    Holder {
        card: "2208",
        holder: "Café Lindqvist AB, Uppsala",
        currency: "SEK",
        runs: &[
            Sketch {
                amount: 48_000.0,
                merchant: "Volkov Marine Trading, Limassol",
                local_time: "11:02",
                channel: "online",
                typical: 4_200.0,
                abroad: 6,
                last_hour: 0,
                history_note: "Coffee, milk, a new dishwasher; no shipping, no Cyprus.",
                device_days: Some(390),
                device: "the café's office PC",
                sanctions: Some((0.71, "VOLKOV MARINE LTD (EU consolidated list)")),
                opening: "A café that pays a shipping company in Limassol. Maybe a coffee container; maybe not. History, device, then the lists.",
                verdict: "review",
                confidence: 0.55,
                reason: "The device is the café's own, so this is probably not theft. But the payee is a 0.71 match with a listed company, and I cannot tell a namesake from the real one. Compliance has to.",
            },
            Sketch {
                amount: 12_400.0,
                merchant: "Johan & Nyström kafferosteri, Stockholm",
                local_time: "08:20",
                channel: "online",
                typical: 4_200.0,
                abroad: 6,
                last_hour: 0,
                history_note: "The same roaster on the first working day of each month.",
                device_days: Some(391),
                device: "the café's office PC",
                sanctions: None,
                opening: "A café buys coffee. I check that it is the month's first order and not the third.",
                verdict: "approve",
                confidence: 0.95,
                reason: "Three times the typical payment, and exactly the monthly order of beans: same roaster, same day of the month, same computer.",
            },
        ],
    },
    Holder {
        card: "7731",
        holder: "Priya Raman, Rotterdam",
        currency: "EUR",
        runs: &[
            Sketch {
                amount: 3_990.0,
                merchant: "Gazelle fietsen Domstad, Utrecht",
                local_time: "15:40",
                channel: "online, 3-D Secure",
                typical: 45.0,
                abroad: 1,
                last_hour: 0,
                history_note: "Two e-bike insurance quotes paid for last week, one euro each.",
                device_days: Some(520),
                device: "Priya's Pixel 8",
                sanctions: None,
                opening: "Ninety times the usual amount, for a bicycle. In this country that is possible; let me look.",
                verdict: "approve",
                confidence: 0.81,
                reason: "She asked two insurers about e-bikes last week, uses her own phone, confirmed with 3-D Secure, and has it sent to her own address. That is a person who saved up for a bicycle.",
            },
            Sketch {
                amount: 499.0,
                merchant: "PlayVault gift cards, Dover (US)",
                local_time: "02:47",
                channel: "online",
                typical: 45.0,
                abroad: 1,
                last_hour: 4,
                history_note: "Four gift card purchases of 499 in the last hour, the first three were declined elsewhere.",
                device_days: Some(0),
                device: "Windows PC that used six other cards today",
                sanctions: None,
                opening: "Gift cards at night are cash with extra steps. History and device, please.",
                verdict: "decline",
                confidence: 0.93,
                reason: "The same computer has tried six other cards today, always for gift cards just under 500. The holder should get a new card and an apology.",
            },
            Sketch {
                amount: 21.8,
                merchant: "Bakkerij Jordy's, Rotterdam",
                local_time: "08:11",
                channel: "contactless",
                typical: 45.0,
                abroad: 1,
                last_hour: 0,
                history_note: "Saturday mornings, this bakery, between 15 and 25.",
                device_days: None,
                device: "card terminal of the merchant",
                sanctions: None,
                opening: "Bread on a Saturday. I would be ashamed to stop it without a reason.",
                verdict: "approve",
                confidence: 0.98,
                reason: "The same bakery as every Saturday. Let the woman have her croissants.",
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_the_runs_that_the_part_says() {
        let told: Vec<usize> = HOLDERS.iter().map(|holder| holder.runs.len()).collect();
        assert_eq!(told, PART.sessions);
    }

    #[test]
    fn run_n_is_the_same_case_every_time() {
        let (one, other) = (Case::of(Seed::new(7), 3), Case::of(Seed::new(7), 3));
        assert_eq!(
            (one.reference, one.session, one.amount),
            (other.reference, other.session, other.amount)
        );
    }
}
