//! The Curious Desk: questions that need two searches and some doubt.

use std::time::Duration;

use serde_json::{Value, json};

use super::Part;
use crate::pace::Pace;
use crate::provider::{ChatRequest, Reply};
use crate::seed::Seed;
use crate::world::{Breakage, Unavailable, World};

/// The agent's name.
pub const AGENT: &str = "web_researcher";

pub(super) const PART: Part = Part {
    agent: AGENT,
    mark: "web researcher of the Curious Desk",
    prefix: "RB-",
    first: 131,
    main_model: "gpt-4.1",
    sessions: &[2, 2, 2, 2],
    perform,
};

/// One question.
#[derive(Debug, Clone)]
pub struct Brief {
    /// Number of the brief.
    pub reference: String,
    /// One session per thread of questions.
    pub session: String,
    /// What somebody wants to know.
    pub question: &'static str,
    /// What was asked and answered before in the thread.
    pub before: Option<(&'static str, &'static str)>,
    sketch: &'static Sketch,
}

#[derive(Debug)]
struct Sketch {
    question: &'static str,
    rounds: &'static [Round],
    answer: &'static str,
    confidence: f64,
}

/// One search, and the page it leads to.
#[derive(Debug)]
struct Round {
    said: &'static str,
    query: &'static str,
    page: Page,
    /// Where to look when the page does not load.
    mirror: Page,
    /// What is still missing afterwards; empty when nothing is.
    missing: &'static str,
}

#[derive(Debug)]
struct Page {
    url: &'static str,
    title: &'static str,
    text: &'static str,
}

impl Brief {
    /// The brief of run `run`.
    pub fn of(seed: Seed, run: u64) -> Self {
        let place = PART.place(seed, run);
        let thread = THREADS[place.session];
        let sketch = &thread[place.step];
        let before = place.step.checked_sub(1).map(|at| (thread[at].question, thread[at].answer));
        Self {
            reference: PART.reference(run),
            session: PART.session_id(seed, place, "thread"),
            question: sketch.question,
            before,
            sketch,
        }
    }
}

/// The web, as far as this brief needs it.
#[derive(Debug, Clone)]
pub struct Web {
    brief: Brief,
    world: World,
}

impl Web {
    /// The web as it is during run `run`.
    pub fn of(seed: Seed, run: u64, pace: Pace) -> Self {
        Self { brief: Brief::of(seed, run), world: World::new(seed, AGENT, run, pace) }
    }

    /// What a search engine finds.
    pub async fn search(&self, query: &str) -> Value {
        self.world.work("search", Duration::from_millis(540)).await;
        let pages = self.brief.sketch.rounds.iter().find(|round| round.query == query);
        let found = pages.into_iter().flat_map(|round| [&round.page, &round.mirror]);
        found.map(|page| json!({"title": page.title, "url": page.url})).collect()
    }

    /// The text of a page; `None` when there is no such page.
    ///
    /// # Errors
    /// When the site is down.
    pub async fn page(&self, url: &str) -> Result<Option<Value>, Unavailable> {
        let usual = Duration::from_millis(880);
        let rounds = self.brief.sketch.rounds;
        if rounds.iter().any(|round| round.page.url == url) {
            self.world.fragile_work("the site", usual, Breakage::Refuses).await?;
        } else {
            self.world.work("mirror", usual).await;
        }
        let mut pages = rounds.iter().flat_map(|round| [&round.page, &round.mirror]);
        Ok(pages
            .find(|page| page.url == url)
            .map(|page| json!({"url": page.url, "title": page.title, "text": page.text})))
    }
}

fn perform(seed: Seed, run: u64, request: &ChatRequest) -> Option<Reply> {
    let brief = Brief::of(seed, run);
    let asked = request.last_user_text();
    if asked.contains("Is that enough") {
        return Some(judge(brief.sketch, asked));
    }
    let rounds = brief.sketch.rounds;
    let searches = request.results_of("web_search_v2").len();
    let judged = request.results_of("coverage_check_v1").len();
    let fetched = request.results_of("fetch_page_v1");
    let read = fetched.iter().filter(|result| is_read(result)).count();
    let may_work = request.offers("web_search_v2");
    if may_work && judged == searches && searches < rounds.len() {
        let round = &rounds[searches];
        let search = json!({"query": round.query});
        return Some(Reply::text(round.said).and_call("web_search_v2", search));
    }
    let last = searches.checked_sub(1).and_then(|at| rounds.get(at));
    if let Some(round) = last.filter(|_| may_work && read < searches) {
        let did_fail = fetched.last().is_some_and(|result| !is_read(result));
        let page = if did_fail { &round.mirror } else { &round.page };
        let said = if did_fail {
            "That page does not load, the next one will do."
        } else {
            "The first result looks right. I read it."
        };
        return Some(Reply::text(said).and_call("fetch_page_v1", json!({"url": page.url})));
    }
    if may_work && judged < searches {
        let notes: Vec<&str> = rounds[..searches].iter().map(|round| round.page.text).collect();
        let check = json!({"searches": searches, "notes": notes});
        let said = "Before I trust my notes, somebody else should.";
        return Some(Reply::text(said).and_call("coverage_check_v1", check));
    }
    let did_miss = fetched.iter().any(|result| !is_read(result));
    let caveat = if did_miss {
        "\n\n(One of my sources did not load; I used another one for the same point.)"
    } else {
        ""
    };
    Some(Reply::text(format!("{}{caveat}", brief.sketch.answer)))
}

fn is_read(result: &str) -> bool {
    result.contains("\"text\"")
}

/// What the judge says of notes.
fn judge(sketch: &Sketch, asked: &str) -> Reply {
    let after = asked.split_once("Notes after ").and_then(|(_, rest)| rest.split(' ').next());
    let searches: usize = after.and_then(|number| number.parse().ok()).unwrap_or(0);
    let round = searches.checked_sub(1).and_then(|at| sketch.rounds.get(at));
    let missing = round.map_or("", |round| round.missing);
    Reply::text(if missing.is_empty() {
        let sure = sketch.confidence;
        format!(
            "Every part can be answered, and each part has a source.\n\nenough: yes, confidence {sure:.2}"
        )
    } else {
        format!("{missing}\n\nenough: no, confidence 0.46")
    })
}

const THREADS: [&[Sketch]; 4] = [
    &[
        Sketch {
            question: "Why did the Tacoma Narrows Bridge really fall in 1940? My physics teacher says resonance, the internet says no.",
            rounds: &[
                Round {
                    said: "A famous film and a famous quarrel. First what happened, then what engineers say today.",
                    query: "Tacoma Narrows Bridge 1940 collapse cause",
                    page: Page {
                        url: "https://en.wikipedia.org/wiki/Tacoma_Narrows_Bridge_(1940)",
                        title: "Tacoma Narrows Bridge (1940)",
                        text: "Opened on 1 July 1940, collapsed on 7 November 1940 in a wind of about 64 km/h. The deck began to twist when a cable band at midspan slipped.",
                    },
                    mirror: Page {
                        url: "https://wsdot.wa.gov/tnbhistory/bridges-failure.htm",
                        title: "Tacoma Narrows Bridge: lessons from the failure",
                        text: "The bridge fell on 7 November 1940, four months after it opened, in winds of about 40 miles an hour.",
                    },
                    missing: "I know when and how it twisted, but not whether that counts as resonance. I need someone who argues the difference.",
                },
                Round {
                    said: "Now the quarrel itself: forced resonance against self-excited flutter.",
                    query: "Tacoma Narrows resonance vs aeroelastic flutter Billah Scanlan",
                    page: Page {
                        url: "https://en.wikipedia.org/wiki/Aeroelasticity",
                        title: "Aeroelasticity: flutter",
                        text: "Billah and Scanlan (American Journal of Physics, 1991): the twist of the deck fed on itself through the air flow. No outside rhythm of matching frequency was needed.",
                    },
                    mirror: Page {
                        url: "https://doi.org/10.1119/1.16590",
                        title: "Resonance, Tacoma Narrows bridge failure, and undergraduate physics textbooks",
                        text: "The failure was an interactive, self-excited oscillation, and not forced resonance by periodic vortices.",
                    },
                    missing: "",
                },
            ],
            answer: "Your teacher has the film right and the word wrong.\n\n**What happened.** On 7 November 1940, in a steady wind of about 64 km/h, the deck changed from bouncing to twisting, and an hour later it was in the water.\n\n**Why.** Resonance needs an outside push in the right rhythm. The wind had no such rhythm. Instead the twist of the thin deck bent the air flow so that the flow pushed the twist further: *self-excited torsional flutter* (Billah and Scanlan, 1991).\n\n**How to put it kindly.** Resonance is pushing a swing in time. Flutter is a swing that learned to push itself.",
            confidence: 0.89,
        },
        Sketch {
            question: "And what did they do differently with the bridge that stands there now?",
            rounds: &[Round {
                said: "The replacement, then. I look for what changed in the deck.",
                query: "Tacoma Narrows Bridge 1950 replacement design stiffening truss",
                page: Page {
                    url: "https://en.wikipedia.org/wiki/Tacoma_Narrows_Bridge_(1950)",
                    title: "Tacoma Narrows Bridge (1950)",
                    text: "Opened on 14 October 1950. Open stiffening trusses about 10 m deep instead of 2.4 m solid plate girders, a wider roadway, and slots in the deck that let the wind through.",
                },
                mirror: Page {
                    url: "https://wsdot.wa.gov/tnbhistory/bridges-current.htm",
                    title: "The 1950 bridge",
                    text: "Deep open trusses, wind grates between the lanes; tested in a wind tunnel first.",
                },
                missing: "",
            }],
            answer: "Three things, all about letting the wind go.\n\n1. **Open trusses** about 10 m deep replaced solid plate girders of 2.4 m: stiffer against twisting, and nothing to catch the flow.\n2. **A wider deck**, four lanes instead of two, which alone makes twisting much harder.\n3. **Slots between the lanes**, so that air passes through the roadway.\n\nIt opened on 14 October 1950, after the model had spent years in a wind tunnel. A second bridge stands beside it since 2007.",
            confidence: 0.84,
        },
    ],
    &[
        Sketch {
            question: "Is it true that a cat once ran a railway station in Japan?",
            rounds: &[
                Round {
                    said: "I hope so. Let me find the cat before I find the railway.",
                    query: "cat station master Japan railway",
                    page: Page {
                        url: "https://en.wikipedia.org/wiki/Tama_(cat)",
                        title: "Tama (cat)",
                        text: "Tama, a calico cat, was made station master of Kishi Station on the Wakayama Electric Railway in January 2007. She was paid in cat food. She died in June 2015.",
                    },
                    mirror: Page {
                        url: "https://wakayama-dentetsu.co.jp/en/",
                        title: "Wakayama Electric Railway",
                        text: "Kishi Station's honorary station master Tama served from 2007.",
                    },
                    missing: "The cat is real. Whether she changed anything for the railway is not said yet, and that is the better half of the story.",
                },
                Round {
                    said: "Did she do the job, though? I look for passengers and money.",
                    query: "Tama station master effect passengers Kishigawa line economy",
                    page: Page {
                        url: "https://en.wikipedia.org/wiki/Kishigawa_Line",
                        title: "Kishigawa Line",
                        text: "The line was to be closed in 2006 for lack of passengers. After Tama's appointment ridership rose by some 10 %, and a study put her worth to the local economy at 1.1 billion yen.",
                    },
                    mirror: Page {
                        url: "https://en.wikipedia.org/wiki/Kishi_Station",
                        title: "Kishi Station",
                        text: "Rebuilt in 2010 in the shape of a cat's head, ears and all.",
                    },
                    missing: "",
                },
            ],
            answer: "Yes, and she was good at it.\n\n**Tama**, a calico cat, became station master of Kishi Station on the Wakayama Electric Railway in January 2007. The pay was cat food; the uniform was a hat.\n\nThe line had been about to close. After her appointment passengers rose by about a tenth, and one study put what she brought to the region at 1.1 billion yen. When she died in June 2015, thousands came to the funeral, and the company made her honorary station master for ever.",
            confidence: 0.93,
        },
        Sketch {
            question: "Who runs the station since she died?",
            rounds: &[Round {
                said: "Succession in a cat monarchy. One search should do.",
                query: "Tama successor Nitama station master Kishi",
                page: Page {
                    url: "https://en.wikipedia.org/wiki/Nitama",
                    title: "Nitama",
                    text: "Nitama, the second Tama, was trained at another station and took over at Kishi after Tama's death in 2015. Yontama, the fourth, serves at Idakiso.",
                },
                mirror: Page {
                    url: "https://wakayama-dentetsu.co.jp/en/stationmaster/",
                    title: "Our station masters",
                    text: "Nitama at Kishi Station; Yontama at Idakiso Station.",
                },
                missing: "",
            }],
            answer: "**Nitama**, whose name simply means Tama Two. She had been in training at another station of the line and took over at Kishi in 2015. **Yontama**, number four, serves at Idakiso.\n\nThere was a candidate for number three in Okayama. It is said that her keepers there refused to give her back.",
            confidence: 0.82,
        },
    ],
    &[
        Sketch {
            question: "Roman concrete is said to heal its own cracks. How?",
            rounds: &[
                Round {
                    said: "A claim with a good story behind it. First the claim.",
                    query: "Roman concrete self-healing lime clasts study",
                    page: Page {
                        url: "https://en.wikipedia.org/wiki/Roman_concrete",
                        title: "Roman concrete",
                        text: "Roman concrete contains small white lumps of lime, long taken for sloppy mixing.",
                    },
                    mirror: Page {
                        url: "https://news.mit.edu/2023/roman-concrete-durability-lime-casts-0106",
                        title: "Riddle solved: why was Roman concrete so durable?",
                        text: "The lumps come from mixing with quicklime at high heat.",
                    },
                    missing: "The lumps of lime are named, but how they heal anything, and whether someone tested it, is missing.",
                },
                Round {
                    said: "Lumps found. Now the experiment, if there was one.",
                    query: "hot mixing quicklime Roman concrete crack test two weeks Science Advances 2023",
                    page: Page {
                        url: "https://doi.org/10.1126/sciadv.add1602",
                        title: "Hot mixing: mechanistic insights into the durability of ancient Roman concrete",
                        text: "Concrete made with quicklime was cracked, and water was run through cracks of up to 0.5 mm. Within about two weeks the flow had stopped; without quicklime it never did.",
                    },
                    mirror: Page {
                        url: "https://en.wikipedia.org/wiki/Lime_clast",
                        title: "Lime clasts",
                        text: "Water dissolves the lime, which settles again as calcite in the crack.",
                    },
                    missing: "",
                },
            ],
            answer: "By keeping its medicine inside.\n\nThe white **lime clasts** in Roman concrete were long blamed on bad mixing. A study in *Science Advances* (2023) argues that the builders mixed in **quicklime**, which gets hot and leaves brittle, reactive lumps behind. When a crack opens it runs through these lumps; water dissolves the lime and leaves it again as **calcite**, right where the crack is.\n\nThey tested it: cracks of up to half a millimetre closed within about two weeks. The same concrete without quicklime kept leaking.",
            confidence: 0.87,
        },
        Sketch {
            question: "Then why do we not build with it today?",
            rounds: &[Round {
                said: "A fair question with a dull answer, I suspect. Checking.",
                query: "why modern construction does not use Roman concrete strength curing steel",
                page: Page {
                    url: "https://en.wikipedia.org/wiki/Portland_cement",
                    title: "Portland cement",
                    text: "Portland cement sets within hours and reaches high strength within 28 days. Roman mixes gain strength over months and were not reinforced.",
                },
                mirror: Page {
                    url: "https://en.wikipedia.org/wiki/Reinforced_concrete",
                    title: "Reinforced concrete",
                    text: "Steel takes the tension that concrete cannot; it rusts when the concrete cracks.",
                },
                missing: "",
            }],
            answer: "Because we are in a hurry, and because of steel.\n\n- **Time.** Portland cement carries load in days and is at full strength in about four weeks. Roman mixes need months.\n- **Tension.** We hang bridges from reinforced concrete. Roman concrete only ever had to be pushed, in arches and domes.\n- **Rust.** Steel inside is also why ours ages: a crack lets water in, the steel swells, the crack grows.\n\nSome firms now put quicklime into modern mixes, which would be the best of both.",
            confidence: 0.76,
        },
    ],
    &[
        Sketch {
            question: "Does a heat pump still make sense for the climate where the electricity comes mostly from coal?",
            rounds: &[
                Round {
                    said: "This is arithmetic with two numbers. The grid's number first.",
                    query: "CO2 per kWh coal electricity vs gas boiler heat",
                    page: Page {
                        url: "https://ourworldindata.org/grapher/carbon-intensity-electricity",
                        title: "Carbon intensity of electricity",
                        text: "Coal power emits roughly 0.8 to 1.0 kg CO2 per kWh of electricity. Poland's mix is near 0.6, Germany's near 0.35, Sweden's below 0.05.",
                    },
                    mirror: Page {
                        url: "https://www.iea.org/reports/the-future-of-heat-pumps",
                        title: "The future of heat pumps",
                        text: "Heat pumps cut emissions compared with gas boilers in nearly all countries today.",
                    },
                    missing: "I have the grid but not the heat: how much a gas boiler emits per kWh of warmth, and what a heat pump gets out of a kWh.",
                },
                Round {
                    said: "Now the other number: what the boiler emits, and what the pump multiplies.",
                    query: "seasonal COP heat pump average gas boiler kg CO2 per kWh heat",
                    page: Page {
                        url: "https://en.wikipedia.org/wiki/Heat_pump",
                        title: "Heat pump",
                        text: "A seasonal performance factor of about 3 is common: 3 kWh of heat for 1 kWh of electricity. A condensing gas boiler emits about 0.2 kg CO2 per kWh of heat.",
                    },
                    mirror: Page {
                        url: "https://en.wikipedia.org/wiki/Coefficient_of_performance",
                        title: "Coefficient of performance",
                        text: "Seasonal values of 2.5 to 4 are typical of air-source heat pumps.",
                    },
                    missing: "",
                },
            ],
            answer: "Almost everywhere yes; on pure coal, not yet.\n\n| heat from | kg CO₂ per kWh of heat |\n|---|---|\n| gas boiler | about 0.20 |\n| heat pump (factor 3) on pure coal, 0.9 | about 0.30 |\n| the same on Poland's mix, 0.6 | about 0.20 |\n| the same on Germany's mix, 0.35 | about 0.12 |\n\nThe break-even is a grid of about **0.6 kg/kWh**. A boiler stays what it is for twenty years; a heat pump gets cleaner each time a coal plant closes.",
            confidence: 0.85,
        },
        Sketch {
            question: "And on a night of minus ten, when the pump has to work harder?",
            rounds: &[Round {
                said: "The factor falls with the cold. By how much is the question.",
                query: "air source heat pump COP at -10 C field measurements",
                page: Page {
                    url: "https://www.cell.com/joule/fulltext/S2542-4351(23)00351-3",
                    title: "Coming in from the cold: heat pump efficiency at low temperatures",
                    text: "Field studies: between 5 and -10 °C the mean COP of standard air-source heat pumps was 2.74.",
                },
                mirror: Page {
                    url: "https://en.wikipedia.org/wiki/Air_source_heat_pump",
                    title: "Air source heat pump",
                    text: "Efficiency falls with the outdoor temperature, and rises again with a lower flow temperature.",
                },
                missing: "",
            }],
            answer: "It works harder, but not hopelessly. Field measurements give a mean factor of **2.74 between +5 and −10 °C**; the fall is gentle, not a cliff.\n\nAt 2.7 the break-even grid moves from 0.6 to about **0.54 kg/kWh**. What counts is the whole winter, though, and most winter hours are nearer to +3 than to −10.",
            confidence: 0.79,
        },
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_the_runs_that_the_part_says() {
        let told: Vec<usize> = THREADS.iter().map(|thread| thread.len()).collect();
        assert_eq!(told, PART.sessions);
    }

    #[test]
    fn only_the_last_round_of_a_question_leaves_nothing_open() {
        for sketch in THREADS.iter().flat_map(|thread| thread.iter()) {
            let (last, earlier) = sketch.rounds.split_last().expect("a question has rounds");
            assert!(last.missing.is_empty());
            assert!(earlier.iter().all(|round| !round.missing.is_empty()), "{}", sketch.question);
        }
    }
}
