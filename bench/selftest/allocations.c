/* Allocates and frees exactly known amounts, as a kernel in a compiled library would. Every byte is written. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The compiler must not see that what is written is never read: it would drop the allocation. */
static void *(*volatile fill)(void *, int, size_t) = memset;

static void *taken(size_t bytes) {
    void *block = malloc(bytes);
    return block ? fill(block, 1, bytes) : NULL;
}

/* malloc and free. */
void within_call(size_t bytes) { free(taken(bytes)); }

/* malloc without free. */
void leak(size_t bytes) { fill(taken(bytes), 2, 1); }

/* Freed by the next call: one block stays, never more. */
void until_next_call(size_t bytes) {
    static void *last;
    free(last);
    last = taken(bytes);
}

/* So many blocks of so many bytes at once. */
void many(size_t count, size_t bytes) {
    void **blocks = malloc(count * sizeof *blocks);
    if (!blocks) return;
    for (size_t i = 0; i < count; i++) blocks[i] = taken(bytes);
    for (size_t i = 0; i < count; i++) free(blocks[i]);
    free(blocks);
}

/* calloc of a small part, grown to the whole; moving may hold both for a moment. */
void grown(size_t bytes) {
    void *block = calloc(bytes / 1024, 1);
    void *larger = realloc(block, bytes);
    free(larger ? fill(larger, 1, bytes) : block);
}

/* Aligned to 64 bytes, as vectorized code wants it. */
void aligned(size_t bytes) {
    void *block;
    if (posix_memalign(&block, 64, bytes) == 0) free(fill(block, 1, bytes));
}

static void *map(size_t bytes) {
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : fill(pages, 1, bytes);
}

/* mmap and munmap, in two halves as an allocator that trims does it. */
void mapped(size_t bytes) {
    char *pages = map(bytes);
    if (!pages) return;
    munmap(pages + bytes / 2, bytes - bytes / 2);
    munmap(pages, bytes / 2);
}

/* mmap without munmap. */
void map_leak(size_t bytes) { map(bytes); }

static void *thread_within(void *bytes) {
    within_call(*(size_t *)bytes);
    return NULL;
}

static void *thread_leak(void *bytes) {
    leak(*(size_t *)bytes);
    return NULL;
}

static void in_thread(void *(*work)(void *), size_t bytes) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, &bytes) == 0) pthread_join(thread, NULL);
}

/* malloc and free in a thread of the library. */
void threaded(size_t bytes) { in_thread(thread_within, bytes); }

/* malloc without free in a thread of the library. */
void threaded_leak(size_t bytes) { in_thread(thread_leak, bytes); }

/* Looked up by name at run time, past the table through which a tracer sees the calls of a library. */
void hidden(size_t bytes) {
    void *(*allocate)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    free(fill(allocate(bytes), 1, bytes));
}
