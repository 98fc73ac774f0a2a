//! Willow Street Clinic: people describe how they feel, and someone must say how soon to be seen.

use std::time::Duration;

use serde_json::{Value, json};

use super::Part;
use crate::pace::Pace;
use crate::provider::{ChatRequest, Reply};
use crate::seed::Seed;
use crate::world::{Breakage, Unavailable, World};

/// The agent's name.
pub const AGENT: &str = "medical_triage";

pub(super) const PART: Part = Part {
    agent: AGENT,
    mark: "intake assistant of Willow Street Clinic",
    prefix: "INT-",
    first: 2_207,
    main_model: "o4-mini",
    sessions: &[2, 2, 2, 2, 1],
    perform,
};

/// One person who wants to know how soon to be seen.
#[derive(Debug, Clone)]
pub struct Intake {
    /// Number of the intake.
    pub reference: String,
    /// One session per patient.
    pub session: String,
    /// Age, and initials.
    pub patient: &'static str,
    /// What they said.
    pub complaint: &'static str,
    sketch: &'static Sketch,
}

#[derive(Debug)]
struct Sketch {
    complaint: &'static str,
    symptoms: &'static [&'static str],
    since: &'static str,
    red_flags: &'static [&'static str],
    topic: &'static str,
    guideline: &'static str,
    guideline_says: &'static str,
    opening: &'static str,
    advice: &'static str,
    level: &'static str,
    confidence: f64,
}

struct Patient {
    name: &'static str,
    visits: &'static [Sketch],
}

impl Intake {
    /// The intake of run `run`.
    pub fn of(seed: Seed, run: u64) -> Self {
        let place = PART.place(seed, run);
        let Patient { name, visits } = &PATIENTS[place.session];
        let sketch = &visits[place.step];
        Self {
            reference: PART.reference(run),
            session: PART.session_id(seed, place, "patient"),
            patient: name,
            complaint: sketch.complaint,
            sketch,
        }
    }
}

/// The clinic's systems.
#[derive(Debug, Clone)]
pub struct Clinic {
    intake: Intake,
    world: World,
}

impl Clinic {
    /// The systems as they are during run `run`.
    pub fn of(seed: Seed, run: u64, pace: Pace) -> Self {
        Self { intake: Intake::of(seed, run), world: World::new(seed, AGENT, run, pace) }
    }

    /// Writes the symptoms into the record, and finds the red flags among them.
    pub async fn record(&self, symptoms: &[String], since: &str) -> Value {
        self.world.work("records", Duration::from_millis(340)).await;
        json!({
            "intake": self.intake.reference,
            "recorded": symptoms.len(),
            "since": since,
            "red_flags": self.intake.sketch.red_flags,
        })
    }

    /// What the guideline on a topic says.
    ///
    /// # Errors
    /// When the guideline service is down.
    pub async fn guideline(&self, topic: &str) -> Result<Value, Unavailable> {
        let usual = Duration::from_millis(760);
        self.world.fragile_work("guidelines.example", usual, Breakage::Refuses).await?;
        let Sketch { guideline, guideline_says, .. } = self.intake.sketch;
        Ok(json!({"topic": topic, "guideline": guideline, "says": guideline_says}))
    }

    /// The clinic's printed protocol, which is older and coarser.
    pub async fn printed_protocol(&self, topic: &str) -> Value {
        self.world.work("printed protocol", Duration::from_millis(60)).await;
        let says = if self.intake.sketch.red_flags.is_empty() {
            "No red flag: advice by phone, and an appointment if it is not better in three days."
        } else {
            "Any red flag: do not wait for an appointment; a clinician decides now."
        };
        json!({"topic": topic, "guideline": "printed protocol, 2019", "says": says})
    }

    /// Calls the nurse on duty.
    pub async fn page_nurse(&self, reference: &str, why: &str) -> Value {
        self.world.work("pager", Duration::from_millis(190)).await;
        json!({"intake": reference, "paged": "nurse on duty", "why": why, "answer": "on my way"})
    }
}

fn perform(seed: Seed, run: u64, request: &ChatRequest) -> Option<Reply> {
    let intake = Intake::of(seed, run);
    let sketch = intake.sketch;
    let answered = |tool: &str| !request.results_of(tool).is_empty();
    if !answered("symptom_intake_v1") && request.offers("symptom_intake_v1") {
        let what = json!({"symptoms": sketch.symptoms, "since": sketch.since});
        return Some(Reply::text(sketch.opening).and_call("symptom_intake_v1", what));
    }
    let guideline = request.results_of("guideline_lookup_v3");
    if guideline.is_empty() && request.offers("guideline_lookup_v3") {
        let said =
            format!("It is in the record. Now what the guideline says about {}.", sketch.topic);
        let what = json!({ "topic": sketch.topic });
        return Some(Reply::text(said).and_call("guideline_lookup_v3", what));
    }
    // The smaller model and the coarser protocol both make the answer less sure.
    let is_small = request.model != PART.main_model;
    let is_coarse = guideline.iter().any(|text| text.contains("printed protocol"));
    let doubt = if is_small { 0.09 } else { 0.0 } + if is_coarse { 0.17 } else { 0.0 };
    let source = if is_coarse { "the printed protocol of 2019" } else { sketch.guideline };
    Some(Reply::text(format!(
        "{}\n\nI went by {source}.\n\nlevel: {}, confidence {:.2}",
        sketch.advice,
        sketch.level,
        sketch.confidence - doubt
    )))
}

const PATIENTS: [Patient; 5] = [
    Patient {
        name: "M. K., 54",
        visits: &[
            Sketch {
                complaint: "There has been a pressure on my chest for about an hour, like someone sitting there. My left arm feels heavy and I am sweating although it is cold. I did not want to bother anyone.",
                symptoms: &["pressure on the chest", "heavy left arm", "cold sweat"],
                since: "1 hour",
                red_flags: &["chest pressure with arm symptoms", "sweating at rest"],
                topic: "acute chest pain",
                guideline: "NICE CG95, recent-onset chest pain",
                guideline_says: "Current chest pain that may be cardiac: emergency referral at once; do not delay for tests.",
                opening: "Pressure, arm, sweat: I record this and look it up in the same breath.",
                advice: "Please call the emergency number now and say exactly what you told me. Unlock the door, sit down, and do not drive yourself. You are not bothering anyone: this is what ambulances are for.",
                level: "emergency",
                confidence: 0.96,
            },
            Sketch {
                complaint: "Hello again, I am home since Tuesday, with a stent and four kinds of tablets. Since the new one for blood pressure I get dizzy when I stand up from my chair.",
                symptoms: &["dizzy on standing", "new blood pressure medicine"],
                since: "2 days",
                red_flags: &[],
                topic: "dizziness after starting an antihypertensive",
                guideline: "NICE NG136, hypertension in adults",
                guideline_says: "Postural dizziness after a new antihypertensive: measure lying and standing pressure, review the dose; same or next day.",
                opening: "Good to hear from you at home. Dizziness on standing after a new tablet: let me write that down.",
                advice: "That sounds like the new tablet doing a little too much of its job. Get up in two steps, drink enough, do not stop any tablet on your own, and come by tomorrow so that we measure your pressure lying and standing.",
                level: "next-day",
                confidence: 0.74,
            },
        ],
    },
    Patient {
        name: "Child of A. B., 3",
        visits: &[
            Sketch {
                complaint: "My daughter is three and has had 39.4 since last night. She drinks well and argues with her brother. There is a rash on her tummy that fades when I press a glass on it.",
                symptoms: &["fever 39.4", "rash that fades under pressure", "drinks well"],
                since: "14 hours",
                red_flags: &[],
                topic: "fever under five",
                guideline: "NICE NG143, fever in under 5s",
                guideline_says: "Blanching rash, normal activity and fluids: green group; see within a day if fever lasts, tell parents what to watch for.",
                opening: "A fever, a fading rash, and enough energy to argue. I take it down carefully.",
                advice: "A child who drinks, argues and has a rash that fades is usually fighting an ordinary virus. We would still like to see her today. Look at the rash with the glass every few hours, and ring the emergency number at once if it stops fading, or if she becomes drowsy.",
                level: "same-day",
                confidence: 0.78,
            },
            Sketch {
                complaint: "You said to ring if the rash does not fade any more under the glass. It does not. She is very sleepy and does not like the light.",
                symptoms: &["rash that does not fade", "drowsy", "dislikes light", "fever"],
                since: "30 minutes",
                red_flags: &[
                    "non-blanching rash",
                    "drowsiness in a child with fever",
                    "photophobia",
                ],
                topic: "suspected meningococcal disease",
                guideline: "NICE NG240, bacterial meningitis",
                guideline_says: "Non-blanching rash with fever: emergency transfer at once.",
                opening: "You did exactly right. I record it, and the guideline follows.",
                advice: "Call the emergency number now, before you read on. Say: a three-year-old with fever and a rash that does not fade. Stay beside her, keep the room dim, and take her to no one by car yourself. I have told our nurse as well.",
                level: "emergency",
                confidence: 0.97,
            },
        ],
    },
    Patient {
        name: "J. R., 27",
        visits: &[
            Sketch {
                complaint: "Sore throat for three days, runny nose, no fever. I sing in a choir and the concert is on Sunday, so this is a catastrophe.",
                symptoms: &["sore throat", "runny nose", "no fever"],
                since: "3 days",
                red_flags: &[],
                topic: "acute sore throat",
                guideline: "NICE NG84, sore throat (acute)",
                guideline_says: "FeverPAIN 0 or 1: no antibiotic; self-care advice; usually better within a week.",
                opening: "A throat, a nose and a concert. Let me note the first two.",
                advice: "With a runny nose and no fever this is almost surely a cold, and an antibiotic would not help the concert. Rest the voice (whispering counts as using it), drink warm things, and come if you get a fever or cannot swallow.",
                level: "self-care",
                confidence: 0.91,
            },
            Sketch {
                complaint: "It got much worse. I cannot swallow my own spit, my voice sounds as if I had a hot potato in my mouth, and I can hardly open my jaw.",
                symptoms: &["cannot swallow saliva", "muffled voice", "jaw hard to open"],
                since: "6 hours",
                red_flags: &["drooling", "trismus with muffled voice"],
                topic: "suspected quinsy",
                guideline: "NICE NG84, sore throat (acute)",
                guideline_says: "Suspected quinsy or airway compromise: emergency hospital admission.",
                opening: "That is another illness than on Tuesday. I write it down and check.",
                advice: "Please go to the emergency department now, sitting upright, with somebody beside you. A muffled voice, a jaw that does not open and saliva that will not go down can mean an abscess near the airway, and that is treated in hospital today.",
                level: "emergency",
                confidence: 0.88,
            },
        ],
    },
    Patient {
        name: "E. T., 71",
        visits: &[
            Sketch {
                complaint: "I tripped over the hose in the garden. The hip is sore but I can walk. I also bumped my head a little, nothing worth mentioning. I take a blood thinner for my heart rhythm.",
                symptoms: &["fall", "sore hip, walks", "bumped head", "takes an anticoagulant"],
                since: "3 hours",
                red_flags: &["head injury on an anticoagulant"],
                topic: "head injury on anticoagulants",
                guideline: "NICE NG232, head injury",
                guideline_says: "On anticoagulants with no other sign: consider a CT within 8 hours of the injury.",
                opening: "The part that is not worth mentioning worries me most. Writing all of it down.",
                advice: "The hip I would watch. The head is another matter: with a blood thinner even a small bump can bleed slowly, and whether you need a scan is for a clinician to say, not for me. Please stay where you are; somebody will ring you within minutes.",
                level: "same-day",
                confidence: 0.54,
            },
            Sketch {
                complaint: "This is her daughter. Mother woke up with a headache and calls me by my aunt's name. She had the fall yesterday.",
                symptoms: &["headache", "confusion", "fall yesterday", "takes an anticoagulant"],
                since: "2 hours",
                red_flags: &["confusion after head injury", "headache on an anticoagulant"],
                topic: "head injury with confusion",
                guideline: "NICE NG232, head injury",
                guideline_says: "Any confusion after head injury: emergency department at once, CT within 1 hour.",
                opening: "A headache and confusion the day after a fall. I note it, then the guideline.",
                advice: "Call the emergency number now. Tell them: fall yesterday, blood thinner, headache and confusion this morning. Put the packet of the blood thinner into her hand, it is the first thing they will ask for.",
                level: "emergency",
                confidence: 0.93,
            },
        ],
    },
    Patient {
        name: "S. V., 34",
        visits: &[Sketch {
            complaint: "A week after a hike I have an itchy patch behind the knee. It is a ring, red outside and pale inside, about as wide as a coffee cup. I feel fine otherwise.",
            symptoms: &["ring-shaped rash", "recent hike"],
            since: "3 days",
            red_flags: &[],
            topic: "erythema migrans",
            guideline: "NICE NG95, Lyme disease",
            guideline_says: "Erythema migrans: diagnose and treat without a blood test; same week.",
            opening: "A ring behind the knee after a hike. That goes into the record as it is.",
            advice: "A ring that grows after a tick season hike is best looked at this week: if it is what it sounds like, it is treated with tablets and without waiting for a blood test. Draw its edge with a pen and take a photograph, so that we can see whether it moves.",
            level: "this-week",
            confidence: 0.69,
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_the_runs_that_the_part_says() {
        let told: Vec<usize> = PATIENTS.iter().map(|patient| patient.visits.len()).collect();
        assert_eq!(told, PART.sessions);
    }
}
