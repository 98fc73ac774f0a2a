//! How often what is watched live is wrong, and how late it is, on a small run with a fixed seed; the large one is `cargo run
//! --release -p throughline-govern --example live_rates`, its figures are in docs/detection.md.

#[path = "simulation/live.rs"]
mod live;

use throughline_govern::Watches;

use live::{SHIFTS, delay, false_alarms};

#[test]
fn usual_days_raise_no_alarm() {
    let counted = false_alarms(3, 20.0, 36);
    assert!(counted.values().all(|count| *count == 0), "{counted:?}");
    assert_eq!(counted.len(), Watches::ALL.len());
}

#[test]
fn each_change_is_told_of_its_own_kind_and_soon() {
    // Windows: minutes, or hours where an hour is a window.
    let most = [3, 6, 8, 12, 6, 6, 1, 1, 1, 1];
    let mut late = Vec::new();
    for (shift, most) in SHIFTS.into_iter().zip(most) {
        let warm_up_hours = if shift.of == Watches::Skewness { 12 } else { 7 };
        let told = delay(5, 60.0, shift, (warm_up_hours, most));
        if told.is_none() {
            late.push(format!("{:?}, {}: not within {most}", shift.of, shift.about));
        }
    }
    assert_eq!(late, Vec::<String>::new());
}
