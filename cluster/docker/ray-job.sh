#!/bin/sh
# The entry point of a KubeRay RayJob: ray-job olfl sweep run SPEC ...
# KubeRay starts a new cluster after every exit code but 0. A driver that did all its work, though trials failed or MLflow
# lacks runs (1), that found what a person must mend first (2), or was asked to stop (130), would come to the same on a new
# one: these end the RayJob. A bug (70) does not, nor what kills a driver.
"$@"
code=$?
case $code in
1 | 2 | 130)
    echo "ray-job: exit code $code; the RayJob ends here, and no new cluster is started"
    exit 0
    ;;
esac
exit "$code"
