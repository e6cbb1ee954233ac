/* SPDX-License-Identifier: MIT */
/*
 * Reads a fault specification, whose language <quiesce/device.h> describes, into rules. Everything
 * that can be wrong with a text is found here, each with a sentence that says what would be right.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/fault.h"

#define BIT(n) (1U << (n))

/* What may follow the name of a point after a colon. */
enum arg_kind { ARG_NONE, ARG_NUMBER, ARG_STATE, ARG_ARC };

#define POINT_DATA                                                                    \
	(BIT(FAULT_REGION_READ) | BIT(FAULT_REGION_WRITE) | BIT(FAULT_SESSION_READ) | \
	 BIT(FAULT_SESSION_WRITE))
#define POINT_NUMBER \
	(POINT_DATA | BIT(FAULT_DATA_SIZE) | BIT(FAULT_GET_MIGRATION) | BIT(FAULT_PRECOPY_INFO))
#define POINT_STATE (BIT(FAULT_SET_STATE) | BIT(FAULT_ARC))
/* Of these only the time at which they happen can be changed. */
#define POINT_SILENT (BIT(FAULT_CLOSE) | BIT(FAULT_IRQ))
#define POINT_CALL   (~(POINT_SILENT | BIT(FAULT_OPEN)) & (BIT(FAULT_POINTS) - 1))

static const struct {
	const char *name;
	enum arg_kind arg;
} points[FAULT_POINTS] = {
	[FAULT_OPEN] = {"open", ARG_NONE},
	[FAULT_GET_INFO] = {"get-info", ARG_NONE},
	[FAULT_GET_REGION_INFO] = {"get-region-info", ARG_NUMBER},
	[FAULT_GET_IRQ_INFO] = {"get-irq-info", ARG_NUMBER},
	[FAULT_REGION_READ] = {"region-read", ARG_NUMBER},
	[FAULT_REGION_WRITE] = {"region-write", ARG_NUMBER},
	[FAULT_REGION_MAP] = {"region-map", ARG_NUMBER},
	[FAULT_SET_IRQS] = {"set-irqs", ARG_NUMBER},
	[FAULT_DMA_MAP] = {"dma-map", ARG_NONE},
	[FAULT_DMA_UNMAP] = {"dma-unmap", ARG_NONE},
	[FAULT_GET_MIGRATION] = {"get-migration", ARG_NONE},
	[FAULT_GET_STATE] = {"get-state", ARG_NONE},
	[FAULT_SET_STATE] = {"set-state", ARG_STATE},
	[FAULT_ARC] = {"arc", ARG_ARC},
	[FAULT_DATA_SIZE] = {"data-size", ARG_NONE},
	[FAULT_LOG_START] = {"log-start", ARG_NONE},
	[FAULT_LOG_STOP] = {"log-stop", ARG_NONE},
	[FAULT_LOG_REPORT] = {"log-report", ARG_NONE},
	[FAULT_SESSION_READ] = {"session-read", ARG_NONE},
	[FAULT_SESSION_WRITE] = {"session-write", ARG_NONE},
	[FAULT_PRECOPY_INFO] = {"precopy-info", ARG_NONE},
	[FAULT_SESSION_CLOSE] = {"session-close", ARG_NONE},
	[FAULT_RESET] = {"reset", ARG_NONE},
	[FAULT_CLOSE] = {"close", ARG_NONE},
	[FAULT_IRQ] = {"irq", ARG_NUMBER},
};

const char *qsc_fault_point_name(enum fault_point point)
{
	return points[point].name;
}

static int parse_number(const char *text, uint64_t max, uint64_t *number)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*number = strtoull(text, &end, 0);
	return *end || errno || *number > max ? -EINVAL : 0;
}

/* Positive, or 0 for what is no name of an errno. */
static int parse_errno(const char *text)
{
	for (int number = 1; number < 134; number++) {
		const char *name = strerrorname_np(number);

		if (name && !strcmp(name, text))
			return number;
	}
	return 0;
}

static int parse_time(const char *text, uint64_t *us)
{
	char *end;
	uint64_t scale;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*us = strtoull(text, &end, 10);
	if (!strcmp(end, "us"))
		scale = 1;
	else if (!strcmp(end, "ms"))
		scale = 1000;
	else if (!strcmp(end, "s"))
		scale = 1000000;
	else
		return -EINVAL;
	if (errno || *us > 3600 * 1000000ULL / scale)
		return -EINVAL;
	*us *= scale;
	return 0;
}

static int parse_percent(const char *text, uint32_t *percent)
{
	char *end;
	unsigned long value;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	value = strtoul(text, &end, 10);
	if (strcmp(end, "%") != 0 || !value || value > 100)
		return -EINVAL;
	*percent = (uint32_t)value;
	return 0;
}

/* "30%" or "30%:7". */
static int parse_chance(char *text, uint32_t *percent, uint64_t *seed)
{
	char *colon = strchr(text, ':');

	*seed = 1;
	if (colon) {
		*colon = '\0';
		if (parse_number(colon + 1, UINT64_MAX, seed) < 0)
			return -EINVAL;
	}
	return parse_percent(text, percent);
}

static int bad(struct qsc_error *err, const struct fault_rule *rule, const char *fmt, ...)
	QSC_PRINTF(3, 4);

static int bad(struct qsc_error *err, const struct fault_rule *rule, const char *fmt, ...)
{
	char text[1024];
	va_list list;

	va_start(list, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, list);
	va_end(list);
	return qsc_error_set(err, EINVAL, NULL, "the fault '%s' %s", rule->text, text);
}

/* ---- what stands before '=' ---- */

static int bad_point(struct qsc_error *err, const struct fault_rule *rule, const char *name)
{
	char list[768] = "";
	size_t used = 0;

	for (size_t i = 0; i < FAULT_POINTS; i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "",
					 points[i].name);
	return bad(err, rule, "has no point '%s'; there are %s", name, list);
}

static int parse_arc(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	char *dash = strchr(arg, '-');
	int from;
	int to;

	if (!dash)
		return bad(err, rule, "needs an arc as FROM-TO, for example RUNNING-RUNNING_P2P");
	*dash = '\0';
	from = qsc_state_parse(arg);
	to = qsc_state_parse(dash + 1);
	if (from < 0 || to < 0)
		return bad(err, rule, "knows no state '%s'", from < 0 ? arg : dash + 1);
	rule->arg = (uint32_t)from;
	rule->to = (uint32_t)to;
	for (uint32_t flags = 1; flags < 8; flags += 2)
		if (from != to && qsc_contract_next(flags, rule->arg, rule->to) == to)
			return 0;
	return bad(err, rule, "has no direct arc from %s to %s", arg, dash + 1);
}

static int parse_arg(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	uint64_t number;
	int state;

	switch (points[rule->point].arg) {
	case ARG_NUMBER:
		if (!arg)
			return 0;
		if (parse_number(arg, 65535, &number) < 0)
			return bad(err, rule, "needs a number after '%s:'",
				   points[rule->point].name);
		rule->arg = (uint32_t)number;
		return 0;
	case ARG_STATE:
		state = arg ? qsc_state_parse(arg) : 0;
		if (state < 0)
			return bad(err, rule, "knows no state '%s'", arg);
		if (arg)
			rule->arg = (uint32_t)state;
		return 0;
	case ARG_ARC:
		return arg ? parse_arc(rule, arg, err) : 0;
	default:
		return arg ? bad(err, rule, "has ':%s' after %s, which takes nothing", arg,
				 points[rule->point].name)
			   : 0;
	}
}

/* "3", "3+", "3-5", "30%" or "30%:7". */
static int parse_when(struct fault_rule *rule, char *when)
{
	char *dash = strchr(when, '-');
	size_t size = strlen(when);

	if (strchr(when, '%'))
		return parse_chance(when, &rule->percent, &rule->seed);
	if (dash) {
		*dash = '\0';
		if (parse_number(dash + 1, UINT64_MAX, &rule->last) < 0)
			return -EINVAL;
	} else if (size && when[size - 1] == '+') {
		when[size - 1] = '\0';
	}
	if (parse_number(when, UINT64_MAX, &rule->first) < 0 || !rule->first)
		return -EINVAL;
	if (!dash && strlen(when) == size)
		rule->last = rule->first;
	return rule->last < rule->first ? -EINVAL : 0;
}

/* Cut `text` at the first `mark`; what follows it, or NULL. */
static char *cut(char *text, char mark)
{
	char *at = strchr(text, mark);

	if (!at)
		return NULL;
	*at = '\0';
	return at + 1;
}

/* [NAME.]POINT[:ARG][/STATE][@WHEN] */
static int parse_where(struct fault_rule *rule, char *where, struct qsc_error *err)
{
	char *when = cut(where, '@');
	char *state = cut(where, '/');
	char *arg = cut(where, ':');
	char *dot = strrchr(where, '.');
	int number;
	size_t i;

	if (dot) {
		*dot = '\0';
		if (dot == where || strlen(where) >= sizeof(rule->name))
			return bad(err, rule, "needs the name of a device before its '.'");
		(void)snprintf(rule->name, sizeof(rule->name), "%s", where);
		where = dot + 1;
	}
	for (i = 0; i < FAULT_POINTS; i++)
		if (!strcmp(points[i].name, where))
			break;
	if (i == FAULT_POINTS)
		return bad_point(err, rule, where);
	rule->point = (enum fault_point)i;
	number = state ? qsc_state_parse(state) : 0;
	if (number < 0)
		return bad(err, rule, "knows no state '%s'", state);
	if (state)
		rule->state = (uint32_t)number;
	if (when && parse_when(rule, when) < 0)
		return bad(err, rule, "needs after '@' a count from 1 on as N, N+ or N-M, or P%%");
	return parse_arg(rule, arg, err);
}

/* ---- what stands after it ---- */

static int take_delay(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	if (!arg || parse_time(arg, &rule->value) < 0)
		return bad(err, rule, "needs a time as delay:10ms, in us, ms or s, up to an hour");
	return 0;
}

static int take_break(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	rule->number = arg ? parse_errno(arg) : EIO;
	return rule->number ? 0 : bad(err, rule, "knows no error '%s'", arg);
}

static int take_short(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	rule->value = 1;
	if (arg && (parse_number(arg, INT32_MAX, &rule->value) < 0 || !rule->value))
		return bad(err, rule, "needs a number of bytes above zero as short:N");
	return 0;
}

static int take_say(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	int state;

	if (!arg)
		return bad(err, rule, "needs what is said as say:VALUE");
	rule->number = parse_errno(arg);
	if (rule->number)
		return 0;
	if (rule->point == FAULT_GET_STATE) {
		state = qsc_state_parse(arg);
		rule->value = (uint64_t)state;
		return state < 0 ? bad(err, rule, "knows no state or error '%s'", arg) : 0;
	}
	if (parse_number(arg, BIT(rule->point) & POINT_NUMBER ? INT64_MAX : 0, &rule->value) < 0)
		return bad(err, rule, "can say %s at %s, not '%s'",
			   BIT(rule->point) & POINT_NUMBER ? "a number or an error"
							   : "0 or an error",
			   points[rule->point].name, arg);
	return 0;
}

static int take_turn(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	char *to = arg ? cut(arg, ':') : NULL;

	if (!to)
		return bad(err, rule,
			   "needs turn:ERROR:ERROR, with 'any' for the first or 0 for "
			   "the second");
	rule->turned = strcmp(arg, "any") != 0 ? parse_errno(arg) : 0;
	if (!rule->turned && strcmp(arg, "any") != 0)
		return bad(err, rule, "knows no error '%s'", arg);
	rule->number = strcmp(to, "0") != 0 ? parse_errno(to) : 0;
	if (!rule->number && strcmp(to, "0") != 0)
		return bad(err, rule, "knows no error '%s'", to);
	return 0;
}

static int take_move(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	int state = qsc_state_parse(arg);

	if (state < 0)
		return bad(err, rule, "needs a state as move:STATE");
	rule->value = (uint64_t)state;
	return 0;
}

static int take_flip(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	rule->value = UINT64_MAX; /* the middle */
	if (arg && parse_number(arg, INT32_MAX, &rule->value) < 0)
		return bad(err, rule, "needs an offset in bytes as flip:N");
	return 0;
}

static int take_fill(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	if (!arg || parse_number(arg, 255, &rule->value) < 0)
		return bad(err, rule, "needs a byte as fill:0x00");
	return 0;
}

static int take_drop(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	rule->chance = 100;
	if (arg && parse_chance(arg, &rule->chance, &rule->chance_seed) < 0)
		return bad(err, rule, "needs drop:P%% or drop:P%%:SEED with P from 1 to 100");
	return 0;
}

static int take_scribble(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	rule->peer = arg != NULL;
	if (arg && strcmp(arg, "peer") != 0)
		return bad(err, rule, "knows scribble and scribble:peer");
	return 0;
}

static int take_session(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	if (!arg || (strcmp(arg, "none") != 0 && strcmp(arg, "again") != 0))
		return bad(err, rule, "knows session:none and session:again");
	rule->value = !strcmp(arg, "again");
	return 0;
}

static int take_nothing(struct fault_rule *rule, char *arg, struct qsc_error *err)
{
	return arg ? bad(err, rule, "has ':%s' after what takes nothing", arg) : 0;
}

static const struct {
	const char *name;
	uint32_t points;
	int (*take)(struct fault_rule *rule, char *arg, struct qsc_error *err);
} kinds[FAULT_KINDS] = {
	[FAULT_FAIL] = {"ERROR", ~POINT_SILENT, take_nothing},
	[FAULT_DELAY] = {"delay", ~0U, take_delay},
	[FAULT_KILL] = {"kill", ~0U, take_nothing},
	[FAULT_DISCONNECT] = {"disconnect", ~POINT_SILENT, take_nothing},
	[FAULT_BREAK] = {"break", POINT_STATE, take_break},
	[FAULT_SHORT] = {"short", POINT_DATA, take_short},
	[FAULT_SKIP] = {"skip",
			POINT_CALL & ~(BIT(FAULT_GET_INFO) | BIT(FAULT_GET_REGION_INFO) |
				       BIT(FAULT_GET_IRQ_INFO) | BIT(FAULT_GET_MIGRATION) |
				       BIT(FAULT_GET_STATE) | BIT(FAULT_REGION_MAP)),
			take_nothing},
	[FAULT_SAY] = {"say", POINT_CALL & ~BIT(FAULT_ARC), take_say},
	[FAULT_TURN] = {"turn", POINT_CALL & ~(BIT(FAULT_ARC) | BIT(FAULT_REGION_MAP)), take_turn},
	[FAULT_MOVE] = {"move", POINT_CALL & ~BIT(FAULT_ARC), take_move},
	[FAULT_FLIP] = {"flip", POINT_DATA, take_flip},
	[FAULT_FILL] = {"fill", BIT(FAULT_REGION_READ) | BIT(FAULT_SESSION_READ), take_fill},
	[FAULT_DROP] = {"drop", BIT(FAULT_LOG_REPORT) | BIT(FAULT_IRQ), take_drop},
	[FAULT_REPEAT] = {"repeat", BIT(FAULT_LOG_REPORT) | BIT(FAULT_IRQ), take_nothing},
	[FAULT_SCRIBBLE] = {"scribble", POINT_CALL & ~BIT(FAULT_ARC), take_scribble},
	[FAULT_SESSION] = {"session", BIT(FAULT_SET_STATE), take_session},
	[FAULT_NOLOG] = {"nolog", BIT(FAULT_GET_MIGRATION), take_nothing},
};

static int bad_kind(struct qsc_error *err, const struct fault_rule *rule, const char *name)
{
	char list[512] = "";
	size_t used = 0;

	for (size_t i = 0; i < FAULT_KINDS; i++)
		if (kinds[i].points & BIT(rule->point))
			used += (size_t)snprintf(
				list + used, sizeof(list) - used, "%s%s", used ? ", " : "",
				i == FAULT_FAIL ? "an error (EIO, ...)" : kinds[i].name);
	return bad(err, rule, "cannot do '%s' at %s; possible are %s", name,
		   points[rule->point].name, list);
}

static int parse_what(struct fault_rule *rule, char *what, struct qsc_error *err)
{
	char *arg = cut(what, ':');
	size_t i;

	rule->number = parse_errno(what);
	for (i = 1; i < FAULT_KINDS && !rule->number; i++)
		if (!strcmp(kinds[i].name, what))
			break;
	if (rule->number)
		i = FAULT_FAIL;
	if (i == FAULT_KINDS || !(kinds[i].points & BIT(rule->point)))
		return bad_kind(err, rule, what);
	rule->kind = (enum fault_kind)i;
	return kinds[i].take(rule, arg, err);
}

static int parse_rule(struct fault_rule *rule, char *text, struct qsc_error *err)
{
	char *what;

	if (strlen(text) >= sizeof(rule->text))
		return qsc_error_set(err, EINVAL, NULL,
				     "a fault has %zu characters; up to %zu are possible",
				     strlen(text), sizeof(rule->text) - 1);
	(void)snprintf(rule->text, sizeof(rule->text), "%s", text);
	rule->arg = FAULT_ANY;
	rule->state = FAULT_ANY;
	rule->first = 1;
	rule->last = UINT64_MAX;
	rule->percent = 100;
	what = cut(text, '=');
	if (!what)
		return bad(err, rule, "is not POINT=KIND, for example set-state:STOP=EIO");
	if (parse_where(rule, text, err) < 0)
		return -EINVAL;
	return parse_what(rule, what, err);
}

int qsc_fault_parse(const char *spec, struct fault_rules *rules, struct qsc_error *err)
{
	qsc_autofree char *copy = NULL;
	char *rest;

	memset(rules, 0, sizeof(*rules));
	if (!spec || !*spec)
		return 0;
	copy = strdup(spec);
	if (!copy)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the faults");
	rest = copy;
	while (rest) {
		char *text = rest;

		rest = cut(text, ',');
		if (rules->count == FAULT_RULES_MAX)
			return qsc_error_set(err, EINVAL, NULL, "there are more than %d faults",
					     FAULT_RULES_MAX);
		if (parse_rule(&rules->rule[rules->count], text, err) < 0)
			return -EINVAL;
		rules->count++;
	}
	return 0;
}

static int check_name(const struct fault_rule *rule, const char *const *names, size_t count,
		      struct qsc_error *err)
{
	char list[128] = "";
	size_t used = 0;

	for (size_t i = 0; i < count; i++) {
		if (!strcmp(rule->name, names[i]))
			return 0;
		if (used < sizeof(list))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
						 i ? ", " : "", names[i]);
	}
	return bad(err, rule, "is for a device '%s' that there is not; there is %s", rule->name,
		   list);
}

int qsc_fault_check_names(const char *spec, const char *const *names, size_t count,
			  struct qsc_error *err)
{
	qsc_autofree struct fault_rules *rules = malloc(sizeof(*rules));
	int result;

	if (!rules)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the faults");
	if (spec && !*spec)
		return qsc_error_set(err, EINVAL, NULL, "the fault has no rule");
	result = qsc_fault_parse(spec, rules, err);
	for (size_t i = 0; names && !result && i < rules->count; i++)
		if (*rules->rule[i].name)
			result = check_name(&rules->rule[i], names, count, err);
	return result;
}

int qsc_fault_check(const char *spec, struct qsc_error *err)
{
	return qsc_fault_check_names(spec, NULL, 0, err);
}

bool qsc_fault_chance(uint64_t seed, uint64_t nth, uint32_t percent)
{
	/* splitmix64: neighbouring numbers give values that have nothing to do with each other */
	uint64_t z = seed * 0xd1342543de82ef95ULL + nth * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return (z ^ (z >> 31)) % 100 < percent;
}
