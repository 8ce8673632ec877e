# A container of Nomad on the CNI network `pods`.
job "hello" {
  group "hello" {
    network {
      mode = "cni/pods"
    }
    task "hello" {
      driver = "docker"
      config {
        image = "busybox"
        args  = ["sleep", "600"]
      }
    }
  }
}
