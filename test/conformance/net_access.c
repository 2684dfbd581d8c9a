#include "net_world.h"
size_t net_access_tests(const struct backend *backend, struct CMUnitTest *out, char (*names)[80])
{
    (void)backend, (void)out, (void)names;
    return 0;
}
