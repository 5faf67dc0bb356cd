import Glibc
import HostSystem
import PCI

extension HostRefusal {
    /// Why there can be no socket at `path`: what is in its way, and what to do (HI-J19, HI-J20).
    init(listeningAt path: String, _ error: SystemError) {
        let cut = path.lastIndex(of: "/")
        let folder = cut.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        switch error.errno {
        case .addressInUse:
            self.init(
                "socket/busy",
                error.description,
                remedy: "end that process, or give this socket another path"
            )
        case .noSuchFile, Errno(ENOTDIR):
            self.init(
                "socket/path",
                "no socket can be made at \(path): there is no directory \(folder)",
                remedy: "make it (`mkdir -p \(folder)`), or give this socket another path"
            )
        case .accessDenied, .notPermitted, Errno(EROFS):
            self.init(
                "socket/path",
                "no socket can be made at \(path): user \(geteuid()) may not write in"
                    + " \(folder): \(error.errno)",
                remedy:
                    "use a directory of this user, such as $XDG_RUNTIME_DIR, or change its owner"
                    + " or mode"
            )
        case .exists, Errno(EISDIR):
            self.init(
                "socket/path",
                "no socket can be made at \(path): something that is no socket is there",
                remedy: "remove it, or give this socket another path"
            )
        case Errno(ELOOP):
            self.init(
                "socket/path",
                "no socket can be made at \(path): a link is there or at \(path).lock, and none is"
                    + " followed",
                remedy: "remove it, or give this socket another path"
            )
        case .noSpace, Errno(EDQUOT):
            self.init(
                "socket/path",
                "no socket can be made at \(path): \(error.errno)",
                remedy: "make room on the file system of \(folder) (`df \(folder)`), or use another"
            )
        case .tooManyDescriptors, Errno(ENFILE):
            self.init(
                "limit/nofile",
                "no socket can be made at \(path): \(error.errno)",
                remedy: "raise the limit: `ulimit -n`, or LimitNOFILE= of the unit"
            )
        default:
            self.init(
                "socket/path",
                "no socket can be made at \(path): \(error.errno)",
                remedy: "give this socket another path"
            )
        }
    }
}
