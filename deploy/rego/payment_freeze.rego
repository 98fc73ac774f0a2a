# Whether new strategies of the payment agent may be deployed (requirement R5.6).
package throughline.payment

import rego.v1

# The share of the error budget that may be used up before nothing new begins.
threshold := 0.6

violation contains msg if {
	used := input.signals.error_budget_consumption_rate
	used > threshold
	msg := sprintf("%d %% of the error budget is used up, %d %% may be", [round(used * 100), round(threshold * 100)])
}
