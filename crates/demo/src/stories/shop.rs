//! Fernwood Goods: orders for tents, boots and one kayak, taken by letter as it were.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Part, money};
use crate::pace::Pace;
use crate::provider::{ChatRequest, Reply};
use crate::seed::Seed;
use crate::world::{Breakage, Unavailable, World};

/// The agent's name.
pub const AGENT: &str = "shop_order";

pub(super) const PART: Part = Part {
    agent: AGENT,
    mark: "fulfil orders for Fernwood Goods",
    prefix: "FG-",
    first: 48_120,
    main_model: "gpt-4o-mini",
    sessions: &[2, 2, 2, 2, 2],
    perform,
};

/// One order.
#[derive(Debug, Clone)]
pub struct Order {
    /// Order number.
    pub reference: String,
    /// One session per customer.
    pub session: String,
    /// Who orders, and from where.
    pub customer: &'static str,
    /// What they wrote.
    pub letter: &'static str,
    sketch: &'static Sketch,
}

#[derive(Debug)]
struct Sketch {
    letter: &'static str,
    /// Article, what it is, quantity, price in euros, in stock.
    lines: &'static [(&'static str, &'static str, u64, f64, u64)],
    shipping: &'static str,
    carrier: &'static str,
    days: u64,
    opening: &'static str,
    closing: &'static str,
}

struct Customer {
    name: &'static str,
    orders: &'static [Sketch],
}

impl Order {
    /// The order of run `run`.
    pub fn of(seed: Seed, run: u64) -> Self {
        let place = PART.place(seed, run);
        let Customer { name, orders } = &CUSTOMERS[place.session];
        let sketch = &orders[place.step];
        Self {
            reference: PART.reference(run),
            session: PART.session_id(seed, place, "customer"),
            customer: name,
            letter: sketch.letter,
            sketch,
        }
    }

    fn total(&self) -> f64 {
        self.sketch.lines.iter().map(|(_, _, quantity, price, _)| *quantity as f64 * price).sum()
    }

    fn is_short(&self) -> bool {
        self.sketch.lines.iter().any(|(_, _, quantity, _, stock)| stock < quantity)
    }
}

/// The shop's systems.
#[derive(Debug, Clone)]
pub struct Warehouse {
    order: Order,
    world: World,
}

impl Warehouse {
    /// The systems as they are during run `run`.
    pub fn of(seed: Seed, run: u64, pace: Pace) -> Self {
        Self { order: Order::of(seed, run), world: World::new(seed, AGENT, run, pace) }
    }

    /// What there is of these articles.
    pub async fn stock(&self, articles: &[String]) -> Value {
        self.world.work("stock", Duration::from_millis(280)).await;
        let known = self.order.sketch.lines.iter();
        known
            .filter(|(sku, ..)| articles.iter().any(|article| article == sku))
            .map(|(sku, name, wanted, price, stock)| {
                json!({"sku": sku, "name": name, "wanted": wanted, "in_stock": stock, "price_eur": price})
            })
            .collect()
    }

    /// Charges the customer's card. The gateway is the fragile system: on bad days it never answers.
    ///
    /// # Errors
    /// When the gateway is down.
    pub async fn charge(&self, order: &str, amount_eur: f64) -> Result<Value, Unavailable> {
        let usual = Duration::from_millis(900);
        self.world.fragile_work("payments.example", usual, Breakage::Hangs).await?;
        Ok(json!({
            "order": order,
            "status": "captured",
            "amount_eur": amount_eur,
            "payment": format!("pay_{}", order.trim_start_matches(PART.prefix)),
        }))
    }

    /// Writes an invoice that the customer pays within two weeks.
    pub async fn invoice(&self, order: &str, amount_eur: f64) -> Value {
        self.world.work("invoices", Duration::from_millis(160)).await;
        json!({"order": order, "status": "invoiced", "amount_eur": amount_eur, "due_days": 14})
    }

    /// Books a parcel.
    pub async fn ship(&self, order: &str, method: &str) -> Value {
        self.world.work("shipping", Duration::from_millis(520)).await;
        let Sketch { carrier, days, .. } = self.order.sketch;
        json!({"order": order, "method": method, "carrier": carrier, "days": days})
    }
}

fn perform(seed: Seed, run: u64, request: &ChatRequest) -> Option<Reply> {
    let order = Order::of(seed, run);
    let sketch = order.sketch;
    let answered = |tool: &str| !request.results_of(tool).is_empty();
    if !answered("inventory_check_v2") && request.offers("inventory_check_v2") {
        let articles: Vec<&str> = sketch.lines.iter().map(|(sku, ..)| *sku).collect();
        let first = Reply::text(sketch.opening);
        return Some(first.and_call("inventory_check_v2", json!({ "articles": articles })));
    }
    if order.is_short() {
        return Some(Reply::text(sketch.closing));
    }
    if !answered("payment_charge_v3") && request.offers("payment_charge_v3") {
        let what = json!({"order": order.reference, "amount_eur": order.total()});
        let said = format!("Everything is there. That makes EUR {}.", money(order.total()));
        return Some(Reply::text(said).and_call("payment_charge_v3", what));
    }
    if !answered("shipping_book_v1") && request.offers("shipping_book_v1") {
        let what = json!({"order": order.reference, "method": sketch.shipping});
        return Some(
            Reply::text("That is settled. Now the parcel.").and_call("shipping_book_v1", what),
        );
    }
    let is_invoiced =
        request.results_of("payment_charge_v3").iter().any(|r| r.contains("invoiced"));
    let payment = if is_invoiced {
        "Our card processor is having a long lunch, so I put an invoice in the box instead; you have two weeks."
    } else {
        "Your card has been charged."
    };
    Some(Reply::text(format!(
        "{}\n\n{payment} {} brings it in about {} days. Your order number is {}.",
        sketch.closing, sketch.carrier, sketch.days, order.reference
    )))
}

const CUSTOMERS: [Customer; 5] = [
    Customer {
        name: "Tove Aune, Tromsø",
        orders: &[
            Sketch {
                letter: "Two of the Larkspur tents and one Ember stove please, the small one. We leave on Friday, so a slow boat is no use to me.",
                lines: &[
                    ("LRK-2-GRN", "Larkspur 2 tent, moss green", 2, 289.0, 14),
                    ("EMB-S", "Ember stove, small", 1, 64.5, 31),
                ],
                shipping: "express",
                carrier: "Bring Express",
                days: 2,
                opening: "Two tents and a stove, and a Friday to respect. First, whether we have them.",
                closing: "Dear Tove, two Larkspur 2 in moss green and a small Ember stove are packed and leave this afternoon, by express, so that Friday stays Friday.",
            },
            Sketch {
                letter: "Forgot the gas! Four of the 230 g cartridges to the same address, if they still make the van.",
                lines: &[("GAS-230", "Gas cartridge, 230 g", 4, 6.9, 220)],
                shipping: "express",
                carrier: "Bring Express",
                days: 2,
                opening: "A stove without gas is a sculpture. Checking the cartridges.",
                closing: "Dear Tove, four cartridges ride along with your tents. Gas may not fly, so please do not try to take them on the plane.",
            },
        ],
    },
    Customer {
        name: "Bartholomew Finch, Hay-on-Wye",
        orders: &[
            Sketch {
                letter: "One pair of Moorwalker boots, brown, size 46. My feet have not changed since 1988 and I do not expect your boots have either.",
                lines: &[("MOR-BRN-46", "Moorwalker boots, brown, 46", 1, 214.0, 0)],
                shipping: "standard",
                carrier: "Royal Mail",
                days: 4,
                opening: "Brown Moorwalkers in 46, for a man who knows what he wants. Let me see the shelf.",
                closing: "Dear Mr Finch, I am sorry: brown 46 is sold out until the tannery's next delivery in three weeks. Black 46 is here, and so is brown 45.5. I have charged nothing; tell me which you would like, or whether you would rather wait.",
            },
            Sketch {
                letter: "Black 46 will do. I can always walk at night.",
                lines: &[("MOR-BLK-46", "Moorwalker boots, black, 46", 1, 214.0, 6)],
                shipping: "standard",
                carrier: "Royal Mail",
                days: 4,
                opening: "Black it is. I make sure that nobody took the pair since yesterday.",
                closing: "Dear Mr Finch, your black Moorwalkers are on their way, with a tin of brown polish, in case you change your mind.",
            },
        ],
    },
    Customer {
        name: "Dr Amara Nwosu, Uppsala universitet",
        orders: &[
            Sketch {
                letter: "Twelve Lumen 300 headlamps for a field course on bats. Red light mode is essential: the bats are shy and so are the students.",
                lines: &[("LUM-300", "Lumen 300 headlamp with red light", 12, 39.0, 57)],
                shipping: "standard",
                carrier: "PostNord",
                days: 3,
                opening: "Twelve headlamps with red light. The 300 has it; the 200 does not. Checking the stock of the right one.",
                closing: "Dear Dr Nwosu, twelve Lumen 300 are packed. Hold the button for three seconds and they start in red, so nobody blinds a bat by accident.",
            },
            Sketch {
                letter: "The course has filled up. Six more of the same headlamps, and a dry bag of 35 litres to keep them in.",
                lines: &[
                    ("LUM-300", "Lumen 300 headlamp with red light", 6, 39.0, 45),
                    ("DRY-35", "Dry bag, 35 l, orange", 1, 27.5, 18),
                ],
                shipping: "standard",
                carrier: "PostNord",
                days: 3,
                opening: "Six more, and a bag. Let me count again after the first twelve.",
                closing: "Dear Dr Nwosu, six more headlamps and an orange dry bag follow. Eighteen students in red light sound like a good film.",
            },
        ],
    },
    Customer {
        name: "Jun Takeda, Lofoten",
        orders: &[
            Sketch {
                letter: "The Skarv sea kayak, please. Can it be delivered to a boat ramp? I have no street.",
                lines: &[("SKARV-510", "Skarv sea kayak, 5.10 m", 1, 2_480.0, 2)],
                shipping: "freight",
                carrier: "Nordic Freight",
                days: 9,
                opening: "Five metres of kayak to a boat ramp without a street name. First the kayak, then the ramp.",
                closing: "Dear Jun, the Skarv travels by freight to the ramp. The driver will ring you from the ferry, so please keep a phone dry.",
            },
            Sketch {
                letter: "It floats! Now the spray skirt, size M, before the weather notices me.",
                lines: &[("SKRT-M", "Spray skirt, neoprene, M", 1, 118.0, 9)],
                shipping: "express",
                carrier: "Bring Express",
                days: 3,
                opening: "A spray skirt in M, with the weather waiting. Checking.",
                closing: "Dear Jun, the spray skirt is on its way by express. Until it arrives, lean away from the waves.",
            },
        ],
    },
    Customer {
        name: "Maribel Ochoa, Bilbao",
        orders: &[
            Sketch {
                letter: "Do you sell half a rope? I need thirty metres of the 9.5 climbing rope, my friend needs the other thirty but has no money until Monday.",
                lines: &[("ROPE-95-30", "Climbing rope, 9.5 mm, 30 m", 1, 92.0, 11)],
                shipping: "standard",
                carrier: "Correos",
                days: 5,
                opening: "We do not cut ropes, but we stock a thirty metre one. Let me see how many.",
                closing: "Dear Maribel, one 30 m rope, made that length and not cut, is packed. Your friend's will still be here on Monday.",
            },
            Sketch {
                letter: "It is Monday. The same rope for my friend, to my address, and two Anka carabiners as a reward for her patience.",
                lines: &[
                    ("ROPE-95-30", "Climbing rope, 9.5 mm, 30 m", 1, 92.0, 10),
                    ("ANKA", "Anka carabiner, screwgate", 2, 14.8, 140),
                ],
                shipping: "standard",
                carrier: "Correos",
                days: 5,
                opening: "The second rope, as promised, and two carabiners. Counting.",
                closing: "Dear Maribel, rope number two and two Anka carabiners leave today. Patience deserves screwgates.",
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_the_runs_that_the_part_says() {
        let told: Vec<usize> = CUSTOMERS.iter().map(|customer| customer.orders.len()).collect();
        assert_eq!(told, PART.sessions);
    }

    #[test]
    fn totals_are_those_of_the_lines() {
        let order =
            (0..10).map(|run| Order::of(Seed::new(42), run)).find(|o| o.letter.contains("Ember"));
        assert!((order.expect("Tove orders").total() - 642.5).abs() < 1e-9);
    }
}
