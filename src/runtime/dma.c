/* SPDX-License-Identifier: MIT */
/* See dma.h. */
#include "runtime/dma.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/guard.h"

/* A report of less is over before turning the log would pay. */
#define TURN_MIN (256ULL << 20)

struct entry {
	uint64_t iova;
	uint64_t size;
	uint32_t flags;
	char *memory;			     /* or NULL: by access */
	const struct qsc_dma_access *access; /* or NULL: by memory */
	struct qsc_guard *guard;	     /* with memory that we mapped from a file */
	char *mapped;			     /* that mapping: whole pages, also huge ones */
	size_t mapped_size;
};

/* Immutable once published; the entries are shared by successive tables. */
struct qsc_dma_table {
	size_t count;
	struct entry *entries[]; /* sorted by iova, disjoint */
};

/* ---- the table ---- */

int qsc_dma_space_init(struct qsc_dma_space *space)
{
	struct qsc_dma_table *empty = calloc(1, sizeof(*empty));

	if (!empty)
		return -ENOMEM;
	qsc_gate_init(&space->gate);
	pthread_mutex_init(&space->table_lock, NULL);
	pthread_mutex_init(&space->log_lock, NULL);
	atomic_init(&space->table, empty);
	atomic_init(&space->log, NULL);
	return 0;
}

static void free_entry(struct entry *entry)
{
	if (entry->guard) {
		qsc_guard_remove(entry->guard);
		munmap(entry->mapped, entry->mapped_size);
	}
	free(entry);
}

void qsc_dma_space_destroy(struct qsc_dma_space *space)
{
	struct qsc_dma_table *table = atomic_load(&space->table);
	size_t i;

	for (i = 0; i < table->count; i++)
		free_entry(table->entries[i]);
	free(table);
	qsc_dirty_log_destroy(atomic_load(&space->log));
	pthread_mutex_destroy(&space->log_lock);
	pthread_mutex_destroy(&space->table_lock);
	qsc_gate_destroy(&space->gate);
}

/* Index of the first entry that ends behind iova. */
static size_t first_entry(const struct qsc_dma_table *table, uint64_t iova)
{
	size_t low = 0;
	size_t high = table->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct entry *entry = table->entries[middle];

		if (iova <= entry->iova + (entry->size - 1))
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/*
 * Map the file behind a mapping. A file that ends before the mapping does would raise SIGBUS, and
 * so would one that is truncated later: the first is refused, the second guarded. Of huge pages
 * whole ones are mapped, for nothing else can be unmapped again.
 */
static int map_file(struct entry *entry, const struct qsc_dma_mapping *mapping)
{
	int prot = (mapping->flags & QSC_DMA_READ ? PROT_READ : 0) |
		   (mapping->flags & QSC_DMA_WRITE ? PROT_WRITE : 0);
	uint64_t unit = qsc_fd_map_unit(mapping->fd);
	uint64_t lead = mapping->fd_offset & (unit - 1);
	struct stat status;
	int result;

	if (mapping->fd_offset > INT64_MAX || mapping->size > INT64_MAX - unit - lead ||
	    lead & (QSC_PAGE_SIZE - 1))
		return -EINVAL;
	if (fstat(mapping->fd, &status) < 0)
		return -errno;
	if (S_ISREG(status.st_mode) &&
	    !qsc_range_within(mapping->fd_offset, mapping->size, (uint64_t)status.st_size))
		return -EINVAL;
	entry->mapped_size = qsc_align_up(lead + mapping->size, unit);
	entry->mapped = mmap(NULL, entry->mapped_size, prot, MAP_SHARED, mapping->fd,
			     (off_t)(mapping->fd_offset - lead));
	if (entry->mapped == MAP_FAILED)
		return -errno;
	entry->memory = entry->mapped + lead;
	result = qsc_guard_add(entry->mapped, entry->mapped_size, &entry->guard);
	if (result < 0)
		munmap(entry->mapped, entry->mapped_size);
	return result;
}

static int make_entry(const struct qsc_dma_mapping *mapping, struct entry **made)
{
	struct entry *entry = calloc(1, sizeof(*entry));
	int result = 0;

	if (!entry)
		return -ENOMEM;
	entry->iova = mapping->iova;
	entry->size = mapping->size;
	entry->flags = mapping->flags;
	if (mapping->vaddr) {
		entry->memory = mapping->vaddr;
	} else if (mapping->fd >= 0) {
		result = map_file(entry, mapping);
		if (result < 0 && mapping->access) {
			entry->memory = NULL;
			entry->access = mapping->access;
			result = 0;
		}
	} else {
		entry->access = mapping->access;
	}
	if (result < 0) {
		free(entry);
		return result;
	}
	*made = entry;
	return 0;
}

/* Publish a table and free the one before it. The caller holds table_lock. */
static void replace_table(struct qsc_dma_space *space, struct qsc_dma_table *table)
{
	struct qsc_dma_table *old = atomic_exchange(&space->table, table);

	qsc_gate_sync(&space->gate);
	free(old);
}

static struct qsc_dma_table *new_table(size_t count)
{
	struct qsc_dma_table *table = malloc(sizeof(*table) + count * sizeof(void *));

	if (table)
		table->count = count;
	return table;
}

static void copy_entries(struct entry **to, struct entry *const *from, size_t count)
{
	while (count--)
		*to++ = *from++;
}

int qsc_dma_space_map(struct qsc_dma_space *space, const struct qsc_dma_mapping *mapping)
{
	struct qsc_dma_table *old;
	struct qsc_dma_table *table = NULL;
	struct entry *entry;
	size_t at;
	int result = make_entry(mapping, &entry);

	if (result < 0)
		return result;
	pthread_mutex_lock(&space->table_lock);
	old = atomic_load(&space->table);
	at = first_entry(old, mapping->iova);
	if (at < old->count && qsc_ranges_overlap(old->entries[at]->iova, old->entries[at]->size,
						  mapping->iova, mapping->size))
		result = -EEXIST;
	else if (old->count >= QSC_DMA_MAX_MAPPINGS)
		result = -ENOSPC;
	else if (!(table = new_table(old->count + 1)))
		result = -ENOMEM;
	if (table) {
		copy_entries(table->entries, old->entries, at);
		table->entries[at] = entry;
		copy_entries(table->entries + at + 1, old->entries + at, old->count - at);
		replace_table(space, table);
	}
	pthread_mutex_unlock(&space->table_lock);
	if (result < 0)
		free_entry(entry);
	return result;
}

int qsc_dma_space_unmap(struct qsc_dma_space *space, uint64_t iova, uint64_t size)
{
	struct qsc_dma_table *old;
	struct qsc_dma_table *table = NULL;
	struct entry *entry = NULL;
	int result = 0;
	size_t at;

	pthread_mutex_lock(&space->table_lock);
	old = atomic_load(&space->table);
	at = first_entry(old, iova);
	if (at < old->count)
		entry = old->entries[at];
	if (!entry || entry->iova != iova || entry->size != size)
		result = -ENOENT;
	else if (!(table = new_table(old->count - 1)))
		result = -ENOMEM;
	if (table) {
		copy_entries(table->entries, old->entries, at);
		copy_entries(table->entries + at, old->entries + at + 1, old->count - at - 1);
		replace_table(space, table);
		free_entry(entry);
	}
	pthread_mutex_unlock(&space->table_lock);
	return result;
}

void qsc_dma_space_unmap_all(struct qsc_dma_space *space)
{
	static struct qsc_dma_table none;
	struct qsc_dma_table *old;
	size_t i;

	/*
	 * The table is emptied in place while nobody can see it: that needs no memory, and letting
	 * go of a device cannot fail.
	 */
	pthread_mutex_lock(&space->table_lock);
	old = atomic_exchange(&space->table, &none);
	qsc_gate_sync(&space->gate);
	for (i = 0; i < old->count; i++)
		free_entry(old->entries[i]);
	old->count = 0;
	atomic_store(&space->table, old);
	pthread_mutex_unlock(&space->table_lock);
}

/* ---- asking ---- */

static _Thread_local enum {
	PERMITTED,
	FORBIDDEN,
	REFUSED
} asking __attribute__((tls_model("initial-exec")));

void qsc_dma_forbid_asking(void)
{
	asking = FORBIDDEN;
}

bool qsc_dma_permit_asking(void)
{
	bool refused = asking == REFUSED;

	asking = PERMITTED;
	return refused;
}

/* ---- transfers ---- */

/* One piece of a transfer: as much as lies in one mapping. */
struct piece {
	char *memory; /* or NULL: by access */
	const struct entry *entry;
	size_t size;
};

/*
 * Find where iova leads. The caller is inside the gate, which keeps what it finds alive, and whose
 * mode says whether peers may be reached.
 */
static int find_piece(const struct qsc_dma_table *table, enum qsc_gate_mode mode, uint32_t needs,
		      uint64_t iova, size_t size, struct piece *piece)
{
	size_t at = first_entry(table, iova);
	const struct entry *entry;
	uint64_t inside;

	if (at == table->count || iova < table->entries[at]->iova)
		return -EFAULT;
	entry = table->entries[at];
	if ((entry->flags & needs) != needs)
		return -EFAULT;
	if (mode != QSC_GATE_OPEN && entry->flags & QSC_DMA_PEER)
		return -EAGAIN;
	/* What stands in for memory that went away is ours, and must not be filled. */
	if (entry->guard && qsc_guard_hit(entry->guard))
		return -EIO;
	if (!entry->memory && asking != PERMITTED) {
		asking = REFUSED;
		return -EAGAIN;
	}
	inside = iova - entry->iova;
	piece->entry = entry;
	piece->memory = entry->memory ? entry->memory + inside : NULL;
	piece->size = (size_t)qsc_min_u64(size, entry->size - inside);
	return 0;
}

/* Memory that went away gave zeroes or swallowed the data. */
static int check_alive(const struct piece *piece)
{
	return piece->entry->guard && qsc_guard_hit(piece->entry->guard) ? -EIO : 0;
}

static int read_piece(const struct piece *piece, uint64_t iova, void *buf)
{
	const struct qsc_dma_access *access = piece->entry->access;

	if (!piece->memory)
		return access->read(access->ctx, iova, buf, piece->size);
	memcpy(buf, piece->memory, piece->size);
	return check_alive(piece);
}

static int write_piece(struct qsc_dma_space *space, const struct piece *piece, uint64_t iova,
		       const void *buf)
{
	const struct qsc_dma_access *access = piece->entry->access;
	struct qsc_dirty_log *log;
	int result = 0;

	/* Two addresses may lead to the same memory, so that a copy overlaps itself. */
	if (piece->memory)
		memmove(piece->memory, buf, piece->size);
	else
		result = access->write(access->ctx, iova, buf, piece->size);
	/* After the write, and also after one that failed half way (LOG-1). */
	log = atomic_load_explicit(&space->log, memory_order_acquire);
	if (log)
		qsc_dirty_log_mark(log, iova, piece->size);
	return result < 0 ? result : check_alive(piece);
}

int qsc_dma_space_read(struct qsc_dma_space *space, uint64_t iova, void *buf, size_t size)
{
	const struct qsc_dma_table *table;
	struct qsc_gate_pass pass = {NULL};
	enum qsc_gate_mode mode;
	struct piece piece = {NULL, NULL, 0};
	int result = 0;

	if (size && !qsc_range_valid(iova, size))
		return -EFAULT;
	mode = qsc_gate_enter(&space->gate, &pass);
	if (mode == QSC_GATE_CLOSED)
		return -EAGAIN;
	table = atomic_load_explicit(&space->table, memory_order_acquire);
	while (size) {
		result = find_piece(table, mode, QSC_DMA_READ, iova, size, &piece);
		if (!result)
			result = read_piece(&piece, iova, buf);
		if (result < 0)
			break;
		iova += piece.size;
		buf = (char *)buf + piece.size;
		size -= piece.size;
	}
	qsc_gate_leave(&space->gate, &pass);
	return result < 0 ? result : 0;
}

int qsc_dma_space_write(struct qsc_dma_space *space, uint64_t iova, const void *buf, size_t size)
{
	const struct qsc_dma_table *table;
	struct qsc_gate_pass pass = {NULL};
	enum qsc_gate_mode mode;
	struct piece piece = {NULL, NULL, 0};
	int result = 0;

	if (size && !qsc_range_valid(iova, size))
		return -EFAULT;
	mode = qsc_gate_enter(&space->gate, &pass);
	if (mode == QSC_GATE_CLOSED)
		return -EAGAIN;
	table = atomic_load_explicit(&space->table, memory_order_acquire);
	while (size) {
		result = find_piece(table, mode, QSC_DMA_WRITE, iova, size, &piece);
		if (!result)
			result = write_piece(space, &piece, iova, buf);
		if (result < 0)
			break;
		iova += piece.size;
		buf = (const char *)buf + piece.size;
		size -= piece.size;
	}
	qsc_gate_leave(&space->gate, &pass);
	return result < 0 ? result : 0;
}

/* Copy one piece; either side may be reached by asking only. */
static int copy_piece(struct qsc_dma_space *space, struct piece *dst, uint64_t dst_iova,
		      struct piece *src, uint64_t src_iova)
{
	char bounce[16384];
	int result;

	if (src->memory) {
		result = write_piece(space, dst, dst_iova, src->memory);
		return result < 0 ? result : check_alive(src);
	}
	src->size = dst->size = qsc_min_u64(src->size, sizeof(bounce));
	result = read_piece(src, src_iova, bounce);
	return result < 0 ? result : write_piece(space, dst, dst_iova, bounce);
}

int qsc_dma_space_copy(struct qsc_dma_space *space, uint64_t dst, uint64_t src, size_t size)
{
	const struct qsc_dma_table *table;
	struct qsc_gate_pass pass = {NULL};
	enum qsc_gate_mode mode;
	struct piece to = {NULL, NULL, 0};
	struct piece from = {NULL, NULL, 0};
	int result = 0;

	if (size && (!qsc_range_valid(dst, size) || !qsc_range_valid(src, size)))
		return -EFAULT;
	mode = qsc_gate_enter(&space->gate, &pass);
	if (mode == QSC_GATE_CLOSED)
		return -EAGAIN;
	table = atomic_load_explicit(&space->table, memory_order_acquire);
	while (size) {
		result = find_piece(table, mode, QSC_DMA_READ, src, size, &from);
		if (!result)
			result = find_piece(table, mode, QSC_DMA_WRITE, dst, from.size, &to);
		if (result)
			break;
		from.size = to.size;
		result = copy_piece(space, &to, dst, &from, src);
		if (result < 0)
			break;
		dst += to.size;
		src += to.size;
		size -= to.size;
	}
	qsc_gate_leave(&space->gate, &pass);
	return result < 0 ? result : 0;
}

/* ---- transfers that somebody else makes ---- */

/* Twice as many as pieces: one may lie across mappings. */
#define MAX_IOV ((int)(2 * QSC_DMA_MAX_PIECES))

/* What a transfer by pieces found in the address space. */
struct reach {
	struct iovec iov[MAX_IOV];
	const struct entry *entries[MAX_IOV];
	int count;
	size_t size;
	bool direct; /* iov has all of it */
};

/* Where all pieces lead, or the error of one of them. Nothing has been transferred yet. */
static int find_pieces(const struct qsc_dma_table *table, enum qsc_gate_mode mode,
		       uint32_t direction, const struct qsc_dma_piece *pieces, size_t count,
		       struct reach *reach)
{
	size_t i;

	reach->count = 0;
	reach->size = 0;
	reach->direct = true;
	for (i = 0; i < count; i++) {
		uint64_t iova = pieces[i].iova;
		uint64_t left = pieces[i].size;

		if (left && !qsc_range_valid(iova, left))
			return -EFAULT;
		while (left) {
			struct piece piece = {NULL, NULL, 0};
			int result = find_piece(table, mode, direction, iova, left, &piece);

			if (result < 0)
				return result;
			reach->direct &= piece.memory && reach->count < MAX_IOV;
			if (reach->direct) {
				reach->entries[reach->count] = piece.entry;
				reach->iov[reach->count++] = (struct iovec){piece.memory,
									    piece.size};
			}
			reach->size += piece.size;
			iova += piece.size;
			left -= piece.size;
		}
	}
	return 0;
}

static int move_directly(const struct reach *reach, qsc_dma_move_fn *move, void *ctx)
{
	int result = move(ctx, reach->iov, reach->count);
	int i;

	for (i = 0; !result && i < reach->count; i++) {
		if (reach->entries[i]->guard && qsc_guard_hit(reach->entries[i]->guard))
			result = -EIO;
	}
	return result;
}

/* Between the pieces and a buffer that holds them one after the other. */
static int copy_pieces(struct qsc_dma_space *space, const struct qsc_dma_table *table,
		       enum qsc_gate_mode mode, uint32_t direction,
		       const struct qsc_dma_piece *pieces, size_t count, char *buffer)
{
	struct piece piece = {NULL, NULL, 0};
	int result = 0;
	size_t i;

	for (i = 0; i < count; i++) {
		uint64_t iova = pieces[i].iova;
		uint64_t left = pieces[i].size;

		for (; left; left -= piece.size, iova += piece.size, buffer += piece.size) {
			result = find_piece(table, mode, direction, iova, left, &piece);
			if (!result)
				result = direction == QSC_DMA_READ
						 ? read_piece(&piece, iova, buffer)
						 : write_piece(space, &piece, iova, buffer);
			if (result < 0)
				return result;
		}
	}
	return 0;
}

static int move_by_buffer(struct qsc_dma_space *space, const struct qsc_dma_table *table,
			  enum qsc_gate_mode mode, uint32_t direction,
			  const struct qsc_dma_piece *pieces, size_t count, size_t size,
			  qsc_dma_move_fn *move, void *ctx)
{
	qsc_autofree char *buffer = malloc(size);
	const struct iovec iov = {buffer, size};
	int result = 0;

	if (!buffer)
		return -ENOMEM;
	if (direction == QSC_DMA_READ)
		result = copy_pieces(space, table, mode, direction, pieces, count, buffer);
	if (!result)
		result = move(ctx, &iov, 1);
	if (!result && direction == QSC_DMA_WRITE)
		result = copy_pieces(space, table, mode, direction, pieces, count, buffer);
	return result;
}

static void mark_pieces(struct qsc_dma_space *space, const struct qsc_dma_piece *pieces,
			size_t count)
{
	struct qsc_dirty_log *log = atomic_load_explicit(&space->log, memory_order_acquire);
	size_t i;

	for (i = 0; log && i < count; i++) {
		if (pieces[i].size)
			qsc_dirty_log_mark(log, pieces[i].iova, pieces[i].size);
	}
}

int qsc_dma_space_move(struct qsc_dma_space *space, uint32_t direction,
		       const struct qsc_dma_piece *pieces, size_t count, qsc_dma_move_fn *move,
		       void *ctx)
{
	const struct qsc_dma_table *table;
	struct qsc_gate_pass pass = {NULL};
	enum qsc_gate_mode mode;
	struct reach reach;
	int result;

	if (count > QSC_DMA_MAX_PIECES)
		return -EINVAL;
	mode = qsc_gate_enter(&space->gate, &pass);
	if (mode == QSC_GATE_CLOSED)
		return -EAGAIN;
	table = atomic_load_explicit(&space->table, memory_order_acquire);
	result = find_pieces(table, mode, direction, pieces, count, &reach);
	if (!result && reach.size && reach.direct) {
		result = move_directly(&reach, move, ctx);
		/* After the write, and also after one that failed half way (LOG-1). */
		if (direction == QSC_DMA_WRITE)
			mark_pieces(space, pieces, count);
	} else if (!result && reach.size) {
		result = move_by_buffer(space, table, mode, direction, pieces, count, reach.size,
					move, ctx);
	}
	qsc_gate_leave(&space->gate, &pass);
	return result;
}

/* ---- the dirty log ---- */

int qsc_dma_space_log_start(struct qsc_dma_space *space, const struct qsc_dma_range *ranges,
			    size_t num_ranges)
{
	struct qsc_dirty_log *log;
	int result;

	pthread_mutex_lock(&space->log_lock);
	if (atomic_load(&space->log)) {
		result = -EBUSY;
	} else {
		result = qsc_dirty_log_create(ranges, num_ranges, &log);
		if (!result) {
			atomic_store(&space->log, log);
			/* What began unlogged has ended, and so was before the start. */
			qsc_gate_sync(&space->gate);
		}
	}
	pthread_mutex_unlock(&space->log_lock);
	return result;
}

int qsc_dma_space_log_stop(struct qsc_dma_space *space)
{
	struct qsc_dirty_log *log;

	pthread_mutex_lock(&space->log_lock);
	log = atomic_exchange(&space->log, NULL);
	if (log) {
		qsc_gate_sync(&space->gate);
		qsc_dirty_log_destroy(log);
	}
	pthread_mutex_unlock(&space->log_lock);
	return log ? 0 : -EINVAL;
}

int qsc_dma_space_log_report(struct qsc_dma_space *space, uint64_t iova, uint64_t size,
			     uint64_t page_size, uint64_t *bitmap)
{
	struct qsc_dirty_log *log;

	pthread_mutex_lock(&space->log_lock);
	log = atomic_load(&space->log);
	if (log) {
		/* What was marked before this report began is on the resting side after the sync.
		 */
		if (size >= TURN_MIN && qsc_dirty_log_turn(log))
			qsc_gate_sync(&space->gate);
		qsc_dirty_log_report(log, iova, size, page_size, bitmap);
	}
	pthread_mutex_unlock(&space->log_lock);
	return log ? 0 : -EINVAL;
}
