/* What the program needs of a compiler. One that ignores any of it would compute something else without a word. */
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "tensorgraph needs arithmetic as it is written: no -ffast-math, -Ofast or -ffinite-math-only"
#endif
#if defined(__has_attribute)
#if !__has_attribute(vector_size) || !__has_attribute(aligned) || !__has_attribute(may_alias)
#error "tensorgraph needs a compiler with the attributes vector_size, aligned and may_alias, as gcc and clang are"
#endif
#endif
typedef REAL needed_vector __attribute__((vector_size(64)));
typedef REAL needed_unaligned_vector __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias));
_Static_assert(sizeof(needed_vector) == 64 && sizeof(needed_unaligned_vector) == 64,
               "tensorgraph needs a compiler with vector extensions, as gcc and clang are");
_Static_assert(sizeof((needed_vector){0} == (needed_vector){0}) == 64,
               "tensorgraph needs a compiler that compares vectors by element, as gcc and clang do");
_Static_assert(_Alignof(needed_unaligned_vector) <= sizeof(REAL),
               "tensorgraph needs a compiler with vectors at any address, as gcc and clang are");
