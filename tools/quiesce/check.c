/* SPDX-License-Identifier: MIT */
/* `quiesce check`: try everything that the contract promises of a device on the device itself. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "device.h"
#include "models.h"
#include "text.h"
#include "tool.h"

#define MAX_DEVICES 64
#define MAX_SEEDS   256
#define MAX_ITEMS   128
#define MAX_STEPS   100000

struct request {
	struct check_device devices[MAX_DEVICES];
	size_t num_devices;
	const char *to;
	bool items[MAX_ITEMS];
	bool some_items;
	uint64_t seeds[MAX_SEEDS];
	size_t num_seeds;
	uint32_t steps;
	enum qsc_check_peers peers;
	bool dangerous;
	bool tap;
	struct qsc_exerciser reg; /* of --register; or size 0 */
	const char *json_path;
	const char *junit_path;
	FILE *json, *junit;
	char *fault;	/* all of --fault as one specification, or NULL */
	char *settings; /* as options, each after a blank; or NULL */
};

/* ---- holding a device ---- */

/* One device by URI, however often it is opened. */
struct holder {
	const char *uri;
	struct qsc_runtime *rt; /* of a model in this process */
	const char *name;
	const char *fault; /* the specification, or NULL */
	char *struck;	   /* its rules that have struck so far, each once */
	pthread_mutex_t lock;
	_Atomic uint64_t violations;
	bool opened; /* once at least */
	bool wrong;  /* the URI is at fault */
};

static void count_violation(void *ctx, enum qsc_clause clause, const char *text)
{
	struct holder *holder = ctx;

	(void)text;
	if (clause == QSC_CLAUSE_ORD_1)
		atomic_fetch_add(&holder->violations, 1);
}

static uint64_t violations(void *ctx)
{
	return atomic_load(&((struct holder *)ctx)->violations);
}

/* It is opened many times, and a rule that strikes is told of once. */
static void struck(void *ctx, const char *rule)
{
	struct holder *holder = ctx;
	char *more = NULL;

	pthread_mutex_lock(&holder->lock);
	if ((!holder->struck || !strstr(holder->struck, rule)) &&
	    asprintf(&more, "%s%s,", holder->struck ? holder->struck : "", rule) >= 0) {
		(void)tool_fail("the fault '%s' strikes the %s", rule, holder->name);
		free(holder->struck);
		holder->struck = more;
	}
	pthread_mutex_unlock(&holder->lock);
}

static int hold_sound(struct holder *holder, struct qsc_device **dev, struct qsc_error *err)
{
	int result;

	if (!holder->rt) {
		result = tool_try_device(holder->uri, NULL, dev, &holder->wrong, err);
		holder->opened |= !result;
		return result;
	}
	result = qsc_runtime_open(holder->rt, dev);
	return result < 0 ? qsc_error_set(err, -result, NULL, "%s", strerror(-result)) : 0;
}

static int hold(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct holder *holder = ctx;
	struct qsc_device *sound;
	int result = hold_sound(holder, &sound, err);

	if (result < 0)
		return result;
	*dev = sound;
	if (holder->fault)
		result = qsc_fault_open(sound, holder->name, holder->fault, struck, holder, dev,
					err);
	if (result < 0)
		qsc_device_close(sound);
	return result;
}

/* A model is made once, so that it is the same device that is opened again. */
static int make(struct holder *holder, const char *name, const char *uri, const char *fault,
		struct qsc_error *err)
{
	const struct models_options options = {
		.violation = count_violation,
		.violation_ctx = holder,
	};
	int result;

	*holder = (struct holder){
		.uri = uri, .name = name, .fault = fault, .lock = PTHREAD_MUTEX_INITIALIZER};
	if (strncmp(uri, "model:", 6) != 0)
		return 0;
	result = models_create(uri + 6, &options, &holder->rt, err);
	holder->wrong = result < 0 && tool_path_is_wrong(-result);
	return result;
}

static void unmake(struct holder *holder)
{
	qsc_runtime_destroy(holder->rt);
	free(holder->struck);
}

/* ---- findings ---- */

struct collector {
	const struct request *request;
	struct check_device *device;
	const struct check_report *report;
};

static char *copy(const char *text)
{
	char *made = strdup(text);

	if (!made)
		exit(tool_fail("out of memory"));
	return made;
}

static void *several(size_t count, size_t size)
{
	void *made = calloc(count ? count : 1, size);

	if (!made)
		exit(tool_fail("out of memory"));
	return made;
}

static void found(void *ctx, const struct qsc_check_finding *f)
{
	struct collector *collector = ctx;
	struct check_device *device = collector->device;
	struct check_finding *kept = &device->findings[device->num_findings];

	if (!device->num_findings && !collector->request->tap)
		check_show_subject(device, collector->report);
	device->num_findings++;
	*kept = (struct check_finding){
		.item = f->item,
		.result = f->result,
		.clause = f->clause,
		.gone = f->gone,
		.text = copy(f->text),
		.steps = several(f->num_steps, sizeof(char *)),
		.num_steps = f->num_steps,
		.head = f->head,
		.omitted = f->omitted,
		.seed = f->seed,
		.took_us = f->took_us,
		.partly = f->partly,
	};
	for (size_t i = 0; i < f->num_steps; i++)
		kept->steps[i] = copy(f->steps[i]);
	device->counts[f->result]++;
	device->partly += f->partly;
	device->unopened |= f->unopened;
	device->named_not_tried |= collector->request->some_items &&
				   f->result == QSC_CHECK_NOT_TRIED;
	if (!collector->request->tap)
		check_show_finding(kept);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

/* One that was there, and is no more, is not the command line's fault. */
static bool is_no_device(const struct holder *holder)
{
	return holder->wrong && !holder->opened;
}

static void check_one(struct request *request, struct check_device *device,
		      const struct check_report *report)
{
	const struct qsc_exerciser *exercisers[16] = {NULL};
	struct collector collector = {request, device, report};
	struct qsc_error err = QSC_ERROR_NONE;
	struct holder holder, to = {0};
	struct qsc_check_options options = {
		.device = {.open = hold, .ctx = &holder},
		.items = request->some_items ? request->items : NULL,
		.exercisers = exercisers,
		.peers = request->peers,
		.dangerous = request->dangerous,
		.seeds = request->num_seeds ? request->seeds : NULL,
		.num_seeds = request->num_seeds,
		.walk_steps = request->steps,
		.found = found,
		.found_ctx = &collector,
	};
	uint64_t start = now_us();
	size_t n = 0;
	int result;

	while (n < 14 && models_exercisers[n]) {
		exercisers[n] = models_exercisers[n];
		n++;
	}
	if (request->reg.register_size)
		exercisers[n] = &request->reg;
	device->findings = several(MAX_ITEMS, sizeof(*device->findings));
	result = make(&holder, "device", device->uri, request->fault, &err);
	if (!result && request->to) {
		result = make(&to, "destination", request->to, request->fault, &err);
		options.to = (struct qsc_check_opener){.open = hold, .ctx = &to};
	}
	if (holder.rt) {
		options.violations = violations;
		options.violations_ctx = &holder;
	}
	if (!result)
		result = qsc_check_run(&options, &device->subject, &err);
	/* Once something has been tried, what came of it is worth more. */
	if (result < 0 && device == request->devices &&
	    (is_no_device(&holder) || is_no_device(&to)))
		tool_usage("%s", err.text);
	if (result < 0)
		memcpy(device->error, err.text, sizeof(device->error));
	device->took_us = now_us() - start;
	unmake(&to);
	unmake(&holder);
}

int check_code(const struct check_device *device)
{
	if (device->counts[QSC_CHECK_BROKEN])
		return TOOL_FAILED;
	if (device->error[0] || device->named_not_tried || device->unopened ||
	    !device->counts[QSC_CHECK_HOLDS])
		return TOOL_UNTRIED;
	return TOOL_OK;
}

const char *check_verdict(const struct check_device *device)
{
	switch (check_code(device)) {
	case TOOL_OK:
		return "conforms";
	case TOOL_FAILED:
		return "broken";
	default:
		return "could not be tried";
	}
}

const char *check_promise(const struct check_finding *finding)
{
	const struct qsc_clause_info *info = qsc_clause_info(finding->clause);

	if (finding->gone)
		return "A device that is held answers, whatever it was asked before.";
	return info ? info->text : finding->item.text;
}

/* A stream of text, which makes `*text` when it is closed. */
static FILE *begin_text(char **text, size_t *size)
{
	FILE *out = open_memstream(text, size);

	if (!out)
		exit(tool_fail("out of memory"));
	return out;
}

static void end_text(FILE *out)
{
	if (fclose(out) != 0)
		exit(tool_fail("out of memory"));
}

char *check_again(const struct check_report *report, const struct check_device *device,
		  const struct check_finding *finding)
{
	char *text = NULL;
	size_t size;
	FILE *out = begin_text(&text, &size);

	(void)fputs("quiesce check ", out);
	text_shell(out, device->uri);
	if (report->to) {
		(void)fputs(" --to ", out);
		text_shell(out, report->to);
	}
	(void)fprintf(out, " --clause %s", finding->item.id);
	if (finding->seed)
		(void)fprintf(out, " --seed %" PRIu64, finding->seed);
	(void)fputs(report->settings, out);
	end_text(out);
	return text;
}

/* ---- the command line ---- */

enum {
	OPT_TO = 256,
	OPT_JSON,
	OPT_JUNIT,
	OPT_TAP,
	OPT_DANGEROUS,
	OPT_SEED,
	OPT_STEPS,
	OPT_PEERS,
	OPT_REGISTER,
	OPT_FAULT,
};

static const struct argp_option arguments[] = {
	{"clause", 'c', "ID", 0,
	 "Try this only: a clause (SESS-6), a row of the allowed list (config-write) or 'walk'; "
	 "may be "
	 "given several times",
	 0},
	{"to", OPT_TO, "URI", 0, "Another device of this kind, that takes what is saved", 0},
	{"json", OPT_JSON, "FILE", 0, "Write everything as JSON", 0},
	{"junit", OPT_JUNIT, "FILE", 0, "Write the results as JUnit XML", 0},
	{"tap", OPT_TAP, NULL, 0, "Print the results as TAP, and nothing else", 0},
	{"seed", OPT_SEED, "N", 0,
	 "Walk with this seed; may be given several times (default 1 to 8)", 0},
	{"steps", OPT_STEPS, "N", 0, "Actions in a walk (default 400)", 0},
	{"tells-peers", OPT_PEERS, "on|off", 0,
	 "Whether the device tells peers from memory, and so may write memory in the P2P states",
	 0},
	{"register", OPT_REGISTER, "REGION:OFFSET:SIZE", 0,
	 "A register of 1, 2, 4 or 8 bytes that reads as written and is part of the state, where "
	 "the "
	 "type of the device is not known",
	 0},
	{"fault", OPT_FAULT, "SPEC", 0,
	 "Have the 'device' (or the 'destination') fail, delay or lie where SPEC says, each time "
	 "it "
	 "is opened; may be given several times",
	 0},
	{"dangerous", OPT_DANGEROUS, NULL, 0,
	 "Try also what crashes some kernels: letting go of a device while it loads", 0},
	{0},
};

static void add_setting(struct request *request, const char *option, const char *value)
{
	char *text = NULL;
	size_t size;
	FILE *out = begin_text(&text, &size);

	(void)fprintf(out, "%s --%s", request->settings ? request->settings : "", option);
	if (value) {
		(void)fputc(' ', out);
		text_shell(out, value);
	}
	end_text(out);
	free(request->settings);
	request->settings = text;
}

static void add_fault(struct request *request, const char *spec)
{
	static const char *const names[] = {"device", "destination"};
	struct qsc_error err = QSC_ERROR_NONE;
	char *all = NULL;

	if (qsc_fault_check_names(spec, names, 2, &err) < 0)
		tool_usage("%s", err.text);
	if (asprintf(&all, "%s%s%s", request->fault ? request->fault : "",
		     request->fault ? "," : "", spec) < 0)
		exit(tool_fail("out of memory"));
	free(request->fault);
	request->fault = all;
	add_setting(request, "fault", spec);
}

static void add_item(struct request *request, const char *id)
{
	int index = qsc_check_item_find(id);

	if (index >= 0) {
		request->items[index] = true;
		request->some_items = true;
	} else if (qsc_clause_parse(id) >= 0) {
		tool_usage("clause %s does not bind a device", id);
	} else {
		tool_usage("'%s' is no clause of a device, no row of the allowed list and not "
			   "'walk'",
			   id);
	}
}

static bool knows_register(struct qsc_device *dev, const struct qsc_device_info *info)
{
	(void)dev;
	(void)info;
	return true;
}

static void set_register(struct request *request, const char *text)
{
	unsigned long long parts[3];
	const char *at = text;

	for (size_t i = 0; i < 3; i++) {
		char *end;

		errno = 0;
		parts[i] = strtoull(at, &end, 0);
		if (errno || end == at || *at == '-' || *end != (i < 2 ? ':' : '\0'))
			tool_usage("register '%s' is not REGION:OFFSET:SIZE", text);
		at = end + 1;
	}
	if (parts[0] > 63 || (parts[2] != 1 && parts[2] != 2 && parts[2] != 4 && parts[2] != 8))
		tool_usage("register '%s' is none: a region below 64, and 1, 2, 4 or 8 bytes",
			   text);
	request->reg = (struct qsc_exerciser){
		.name = "--register",
		.knows = knows_register,
		.register_region = (uint32_t)parts[0],
		.register_offset = parts[1],
		.register_size = (uint32_t)parts[2],
		.register_mask = parts[2] == 8 ? UINT64_MAX : (1ULL << parts[2] * 8) - 1,
	};
	add_setting(request, "register", text);
}

static void set_number(struct request *request, int key, const char *text)
{
	bool seed = key == OPT_SEED;
	uint64_t most = seed ? UINT64_MAX : MAX_STEPS;
	uint64_t number;

	if (tool_parse_number(text, 1, most, &number) < 0)
		tool_usage("%s '%s' is no number from 1 to %" PRIu64, seed ? "seed" : "steps", text,
			   most);
	if (!seed) {
		request->steps = (uint32_t)number;
		add_setting(request, "steps", text);
		return;
	}
	if (request->num_seeds == MAX_SEEDS)
		tool_usage("more than %d seeds", MAX_SEEDS);
	request->seeds[request->num_seeds++] = number;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct request *request = state->input;

	switch (key) {
	case 'c':
		add_item(request, arg);
		return 0;
	case OPT_TO:
		request->to = arg;
		return 0;
	case OPT_JSON:
		request->json_path = arg;
		return 0;
	case OPT_JUNIT:
		request->junit_path = arg;
		return 0;
	case OPT_TAP:
		request->tap = true;
		return 0;
	case OPT_FAULT:
		add_fault(request, arg);
		return 0;
	case OPT_DANGEROUS:
		request->dangerous = true;
		add_setting(request, "dangerous", NULL);
		return 0;
	case OPT_SEED:
	case OPT_STEPS:
		set_number(request, key, arg);
		return 0;
	case OPT_PEERS:
		if (strcmp(arg, "on") != 0 && strcmp(arg, "off") != 0)
			tool_usage("--tells-peers is on or off, not '%s'", arg);
		request->peers = strcmp(arg, "on") ? QSC_CHECK_PEERS_NOT_TOLD
						   : QSC_CHECK_PEERS_TOLD;
		add_setting(request, "tells-peers", arg);
		return 0;
	case OPT_REGISTER:
		set_register(request, arg);
		return 0;
	case ARGP_KEY_ARG:
		if (request->num_devices == MAX_DEVICES)
			tool_usage("more than %d devices", MAX_DEVICES);
		request->devices[request->num_devices++].uri = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int write_files(struct request *request, const struct check_report *report)
{
	int code = TOOL_OK;

	if (request->json)
		code = tool_close_output(request->json, request->json_path,
					 check_write_json(report, request->json));
	if (request->junit && tool_close_output(request->junit, request->junit_path,
						check_write_junit(report, request->junit)))
		code = TOOL_FAILED;
	return code;
}

static void release(struct request *request)
{
	for (size_t d = 0; d < request->num_devices; d++) {
		struct check_device *device = &request->devices[d];

		for (size_t i = 0; i < device->num_findings; i++) {
			for (size_t s = 0; s < device->findings[i].num_steps; s++)
				free(device->findings[i].steps[s]);
			free(device->findings[i].steps);
			free(device->findings[i].text);
		}
		free(device->findings);
	}
	free(request->fault);
	free(request->settings);
	free(request);
}

/* The worst of all devices: broken before what could not be tried. */
static int check_all(struct request *request)
{
	struct check_report report = {request->devices, request->num_devices, request->to,
				      request->settings ? request->settings : ""};
	int code = TOOL_OK, written;

	for (size_t i = 0; i < request->num_devices; i++) {
		struct check_device *device = &request->devices[i];
		int one;

		check_one(request, device, &report);
		if (!request->tap)
			check_show_verdict(&report, device);
		one = check_code(device);
		if (code != TOOL_FAILED && one != TOOL_OK)
			code = one;
	}
	if (request->tap)
		check_write_tap(&report);
	written = write_files(request, &report);
	return code == TOOL_OK ? written : code;
}

int cmd_check(int argc, char **argv)
{
	static const struct argp argp = {
		.options = arguments,
		.parser = parse_option,
		.args_doc = "DEVICE…",
		.doc = "Try everything that the contract promises of a device. The device is "
		       "reset, "
		       "stopped, loaded and opened again many times: it must have no other user. "
		       "DEVICE is " TOOL_URI_FORMS ".\v"
		       "Exit codes: 0 nothing is broken, 1 something is, 2 wrong usage, 3 nothing "
		       "is broken, but the device could not be tried, or what --clause names could "
		       "not.",
	};
	struct request *request = calloc(1, sizeof(*request));
	int code;

	if (!request)
		return tool_fail("out of memory");
	tool_parse(&argp, argc, argv, request);
	if (!request->num_devices)
		tool_usage("a DEVICE is missing: " TOOL_URI_FORMS);
	request->json = tool_open_output(request->json_path);
	request->junit = tool_open_output(request->junit_path);
	tool_raise_file_limit();
	code = check_all(request);
	release(request);
	return code;
}
