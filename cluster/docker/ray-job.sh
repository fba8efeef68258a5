#!/bin/sh
# The entry point of a KubeRay RayJob: ray-job olfl sweep run SPEC ...
# KubeRay starts a new cluster after every exit code but 0. A driver that was asked to stop (130), or found what a person
# must mend first (2), would find the same on a new one: these end the RayJob. What kills a driver does not.
"$@"
code=$?
case $code in
2 | 130)
    echo "ray-job: exit code $code; the RayJob ends here, and no new cluster is started"
    exit 0
    ;;
esac
exit "$code"
